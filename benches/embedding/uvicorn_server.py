"""The same model under sentence-transformers behind uvicorn: what compare.py compares with.

One request is one call of `encode`, on a thread beside the event loop, as most do it.
"""

import asyncio
import concurrent.futures
import os

from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(os.environ["MODEL"], device="cpu")
name = os.path.basename(os.environ["MODEL"])
threads = concurrent.futures.ThreadPoolExecutor(max_workers=int(os.environ.get("ENCODERS", "1")))
app = FastAPI()


class Ask(BaseModel):
    input: str | list[str]
    model: str | None = None


def embed(texts):
    tokens = sum(len(ids) for ids in model.tokenizer(texts, truncation=True)["input_ids"])
    return model.encode(texts, normalize_embeddings=True, show_progress_bar=False).tolist(), tokens


@app.post("/v1/embeddings")
async def embeddings(ask: Ask):
    texts = [ask.input] if isinstance(ask.input, str) else ask.input
    vectors, tokens = await asyncio.get_running_loop().run_in_executor(threads, embed, texts)
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
