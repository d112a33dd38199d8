# lf-export with the GGUF extra, for CPU.
#   docker build --tag lf-export .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD":/data lf-export run recipe.yaml
# GPU variant: start from a CUDA runtime image with Python 3.11 and set TORCH_INDEX_URL to PyTorch's CUDA builds; never run.
FROM python:3.11-slim

# llama.cpp's shared library needs the system's OpenMP.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

# PyTorch's index of CPU builds leaves out CUDA; empty takes the default index.
ARG TORCH_INDEX_URL=""
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
COPY pyproject.toml README.md LICENSE ./
COPY recipes ./recipes
COPY calibration ./calibration
COPY lf_export ./lf_export
RUN pip install --no-cache-dir --constraint constraints.txt '.[gguf]' \
    && useradd --create-home --uid 1000 export \
    && install --directory --owner export /data

# Caches of a user that has no home here (docker run --user) go to /tmp.
ENV XDG_CACHE_HOME=/tmp/cache
USER export
WORKDIR /data
ENTRYPOINT ["lf-export"]
