# The GPU image: embedding, clustering and training on NVIDIA devices. CUDA's libraries come with torch's wheels, the
# driver from the host (NVIDIA Container Toolkit), so the base needs neither.
# From the repository root: docker build -f deploy/gpu.Dockerfile -t dataforge:gpu .
FROM python:3.11.14-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/dataforge \
 && for wheel in /wheels/*.whl; do \
      /opt/dataforge/bin/pip install "${wheel}[embeddings,gpu,ray,service,trainer,kernels,reports]" || exit 1; \
    done

FROM python:3.11.14-slim-bookworm
# gcc and libc6-dev: Triton compiles a launcher when a kernel first runs. wget: KubeRay's health probes.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 dataforge \
 && install --directory --owner=dataforge --group=dataforge /data /data/workspace
COPY --from=build /opt/dataforge /opt/dataforge
ENV PATH=/opt/dataforge/bin:$PATH DATAFORGE_WORKSPACE=/data/workspace PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /data
ENTRYPOINT ["dataforge"]
CMD ["status"]
