# The image of cascade-monitor: its virtual environment on a slim Debian, nothing else.
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag cascade-monitor .
# Both stages need the same base. For a release pin it by digest, not only by tag:
#   --build-arg BASE=python:3.13.7-slim-trixie@sha256:...
ARG BASE=python:3.13.7-slim-trixie

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Dependencies first: this layer is built anew only when one of them changes.
COPY pyproject.toml requirements.lock ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > dependencies.txt \
 && python -m venv --without-pip /opt/cascade \
 && pip --python /opt/cascade/bin/python install --only-binary :all: --constraint requirements.lock --requirement dependencies.txt \
 && pip install hatchling==1.27.0
COPY README.md LICENSE ./
COPY config/monitor.toml config/instruments.toml config/
COPY monitor monitor
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
 && pip --python /opt/cascade/bin/python install --no-deps wheels/*.whl

FROM ${BASE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cascade-monitor" \
      org.opencontainers.image.description="Early warning of liquidation cascades on derivatives exchanges" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/cascade /opt/cascade
# A new named volume takes over this directory's owner.
RUN install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/cascade
ENV PATH=/opt/cascade/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CASCADE_REVISION=${REVISION} \
    CASCADE_STATE_DIRECTORY=/var/lib/cascade
WORKDIR /var/lib/cascade
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 9464
STOPSIGNAL SIGTERM
# A start costs 0.7 s of processor time, hence not more often.
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s --retries=3 \
  CMD ["cascade-monitor", "healthcheck"]
ENTRYPOINT ["cascade-monitor"]
CMD ["run"]
