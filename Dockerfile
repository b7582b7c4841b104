# One image for all Python services of docker-compose.yml.
# by digest in production: script/pin
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements.lock ./
RUN python -m venv /opt/orchestrator \
 && /opt/orchestrator/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY orchestrator orchestrator
COPY tasks tasks
COPY tenants tenants
COPY xmpp_pool xmpp_pool
RUN /opt/orchestrator/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --create-home orchestrator
COPY --from=build /opt/orchestrator /opt/orchestrator
ENV PATH=/opt/orchestrator/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/orchestrator
STOPSIGNAL SIGTERM
CMD ["orchestrator", "--help"]
