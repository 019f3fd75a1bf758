"""Models that threads load at once, as the app does: one of the Hub, and one for searches."""

from __future__ import annotations

import threading

from earthvlm.models.language.language_model import load_language_model
from earthvlm.models.text_encoder import load_sentence_model
from tests.support.tiny_models import save_tiny_model


def test_models_loaded_at_once_keep_their_tied_weights(tmp_path):
    save_tiny_model(tmp_path, "llama", tie_word_embeddings=True)
    faults: list[Exception] = []
    ready = threading.Barrier(3)

    def load(times: int, what) -> None:
        ready.wait(30)
        try:
            for _ in range(times):
                what()
        except Exception as error:  # shown by the assertion
            faults.append(error)

    def load_language() -> None:
        load_language_model(str(tmp_path), device="cpu")

    work = ((12, load_language), (12, load_language), (1, load_sentence_model.__wrapped__))
    threads = [threading.Thread(target=load, args=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    model = load_language_model(str(tmp_path), device="cpu").model
    assert model.lm_head.weight is model.model.embed_tokens.weight
