# Debian's PostgreSQL and RabbitMQ in the place of the official images, which come from a registry.
ARG DEBIAN_IMAGE=debian:bookworm-slim
# hadolint ignore=DL3006 # its tag is above
FROM ${DEBIAN_IMAGE} AS db
# hadolint ignore=DL3008 # the suite holds its version
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql \
 && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
 && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data
COPY bench/images/db.sh /usr/local/bin/
USER postgres
ENTRYPOINT ["db.sh"]

# hadolint ignore=DL3006
FROM ${DEBIAN_IMAGE} AS rabbitmq
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends rabbitmq-server
ENV RABBITMQ_LOGS=- RABBITMQ_LOG_BASE=/tmp PATH=/usr/lib/rabbitmq/bin:$PATH
USER rabbitmq
CMD ["rabbitmq-server"]
