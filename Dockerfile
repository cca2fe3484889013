# docker build -t parley:0.1.0 .        in the top folder of the tree
#
# `make image` runs the same steps without an engine, in bare root directories, and starts what comes out.

FROM debian:12-slim AS build
WORKDIR /src
# What changes seldom comes first.
COPY .ci/install .ci/packages .ci/
RUN .ci/install build
COPY . .
RUN make build && make install PREFIX=/usr DESTDIR=/out && strip --strip-debug /out/usr/bin/*

FROM debian:12-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl libcurl4 libevent-2.1-7 libh2o-evloop0.13 libhiredis0.14 \
      libjansson4 libpq5 libsqlite3-0 libssl3 libsystemd0 libyaml-0-2 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --home-dir /var/lib/parley --shell /usr/sbin/nologin parley \
 && install -d -o parley -g parley -m 750 /var/lib/parley /run/parley
COPY --from=build /out/usr/bin/parleyd /usr/bin/parleyd
COPY etc/parley.production.yaml /etc/parley/parley.yaml

# Docker's networks are private ones; whoever is on them is believed when he names another as the client.
ENV PARLEY_LISTEN=0.0.0.0:8080 \
    PARLEY_TRUSTED_PROXIES=127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16
USER 10001:10001
WORKDIR /var/lib/parley
# The record, where it is SQLite; with DATABASE_URL nothing is kept here.
VOLUME /var/lib/parley
EXPOSE 8080
# Drains: give it drain.pause + drain.timeout and some seconds (docker stop -t 45).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/health"]
ENTRYPOINT ["/usr/bin/parleyd", "--config", "/etc/parley/parley.yaml"]
