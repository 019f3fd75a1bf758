"""Engines of search: exact ones, faiss and Milvus."""
