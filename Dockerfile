# syntax=docker/dockerfile:1
# lf-export for processors, with GGUF, ONNX, servers, the constrained arm and signing.
#   docker build --tag lf-export .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD":/data lf-export run recipe.yaml
# For CUDA (never run where this was written): name an index of PyTorch's CUDA builds and the other ONNX Runtime,
#   docker build --build-arg TORCH_INDEX_URL=… --build-arg EXTRAS=gguf,onnx-gpu,endpoint,grammar,sign --tag lf-export:cuda .
ARG BASE=docker.io/library/debian:bookworm-20250520-slim

# Debian's security updates would break exact versions of its packages within weeks: the base is pinned by its tag, and
# Python packages by constraints.txt.
FROM ${BASE} AS python
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/*
# libgomp1: llama.cpp's shared library needs the system's OpenMP.

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The index of builds without CUDA; empty takes pip's own.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG EXTRAS=gguf,onnx,endpoint,grammar,sign
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
RUN python3 -m venv /opt/lf-export \
    && /opt/lf-export/bin/pip install --constraint constraints.txt \
    ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
# The versions alone bring the dependencies: a change of the code does not install them anew.
COPY pyproject.toml README.md LICENSE ./
COPY recipes ./recipes
COPY calibration ./calibration
COPY lf_export ./lf_export
RUN /opt/lf-export/bin/pip install --constraint constraints.txt ".[${EXTRAS}]" \
    && python3 -m venv /tmp/bom \
    && /tmp/bom/bin/pip install cyclonedx-bom==7.5.0 \
    && /tmp/bom/bin/cyclonedx-py environment --output-reproducible --output-file /opt/lf-export/sbom.cdx.json \
    /opt/lf-export/bin/python \
    && /opt/lf-export/bin/pip uninstall --yes pip \
    && rm -rf /tmp/bom

FROM python
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lf-export" \
    org.opencontainers.image.description="Ship a function-calling LLM in every format, and prove that it still calls functions" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    lf-export.sbom="/opt/lf-export/sbom.cdx.json"
COPY --from=build /opt/lf-export /opt/lf-export
RUN useradd --create-home --uid 1000 export \
    && install --directory --owner export /data
# Caches of a user that has no home here (docker run --user) go to /tmp.
ENV PATH=/opt/lf-export/bin:$PATH XDG_CACHE_HOME=/tmp/cache PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /data
VOLUME ["/data"]
HEALTHCHECK --interval=30m --timeout=120s CMD ["lf-export", "doctor", "--require", "gguf"]
ENTRYPOINT ["lf-export"]
