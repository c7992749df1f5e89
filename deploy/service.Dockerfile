# The CPU image: every command of dataforge, the REST service and Ray included.
# From the repository root: docker build -f deploy/service.Dockerfile -t dataforge:cpu .
FROM python:3.11.14-slim-bookworm AS build
# Where to find wheels beside the default index, such as torch's small builds without CUDA.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The compiler stays in this stage; its exact version does not matter, the base image's release fixes it.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/dataforge \
 && for wheel in /wheels/*.whl; do \
      /opt/dataforge/bin/pip install "${wheel}[embeddings,cpu,ray,service,trainer,reports]" || exit 1; \
    done

FROM python:3.11.14-slim-bookworm
# wget: KubeRay's health probes call it inside the container.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 dataforge \
 && install --directory --owner=dataforge --group=dataforge /data /data/workspace
COPY --from=build /opt/dataforge /opt/dataforge
ENV PATH=/opt/dataforge/bin:$PATH DATAFORGE_WORKSPACE=/data/workspace PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["dataforge"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
