# The image of nodes, workers, the alert bridge and `atp migrate`: one image, the command says which.
#   docker build --build-arg ATP_REVISION="$(git rev-parse HEAD)" -t atp .
# requirements/image.txt is the lock without the embedded PostgreSQL, Valkey and model: 60 packages instead of 70.

FROM python:3.11.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements/image.txt requirements/build.txt requirements/
# Hashed wheels only: nothing is compiled, nothing is resolved anew.
RUN python -m venv /opt/atp \
    && /opt/atp/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements/image.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml README.md ./
COPY service service
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir dist . \
    && /opt/atp/bin/pip install --no-deps --no-index dist/*.whl

FROM python:3.11.13-slim-bookworm
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/atp --shell /usr/sbin/nologin atp \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/atp /var/lib/atp/spool
COPY --from=build /opt/atp /opt/atp
ARG ATP_REVISION=unknown
# PYTHONDONTWRITEBYTECODE: the root file system may be read-only. Inside a container every address of it is its own.
# It takes PRIVATE_HOST for a secret:
# hadolint ignore=DL3064
ENV ATP_REVISION=$ATP_REVISION \
    PATH=/opt/atp/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PRIVATE_HOST=0.0.0.0 \
    BRIDGE_HOST=0.0.0.0 \
    LOG_FORMAT=json \
    USAGE_SPOOL_DIR=/var/lib/atp/spool
USER 10001:10001
WORKDIR /var/lib/atp
EXPOSE 8000 9000
# Of nodes and workers; the bridge's port is another (compose.yaml). Ready or not is the load balancer's question.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9000/livez', timeout=2)"]
ENTRYPOINT ["atp"]
CMD ["serve"]
