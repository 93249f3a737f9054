"""An application with tuspyserver, after its README."""

from __future__ import annotations

import os

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from tuspyserver import create_tus_router

app = FastAPI()
app.add_middleware(
    CORSMiddleware,
    allow_origins=["*"],
    allow_methods=["*"],
    allow_headers=["*"],
    expose_headers=["Location", "Upload-Offset", "Tus-Resumable", "Upload-Expires", "Upload-Length"],
)
app.include_router(create_tus_router(files_dir=os.environ["BENCH_FOLDER"]))
