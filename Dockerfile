# One image for all Python services of docker-compose.yml.
# by digest in production: script/pin
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE} AS python
# hadolint ignore=DL3008 # the suite holds its version
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/*

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements.lock ./
RUN python3 -m venv /opt/orchestrator \
 && /opt/orchestrator/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY orchestrator orchestrator
COPY tasks tasks
COPY tenants tenants
COPY xmpp_pool xmpp_pool
RUN /opt/orchestrator/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python
RUN useradd --system --uid 10001 --create-home orchestrator
COPY --from=build /opt/orchestrator /opt/orchestrator
ENV PATH=/opt/orchestrator/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/orchestrator
STOPSIGNAL SIGTERM
CMD ["orchestrator", "--help"]
