# Two images: `ris` (backend, worker, Valkey) and `label-studio`. Built in stages: compilers and caches stay behind.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS installer
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
COPY constraints.txt /build/
RUN python -m venv /opt/installer && /opt/installer/bin/pip install -c /build/constraints.txt uv
ENV PATH=/opt/installer/bin:$PATH

FROM installer AS ris-build
# The CPU build of torch is a tenth of the CUDA one, which is --build-arg TORCH_INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN uv venv /opt/venv \
    && uv pip install --python /opt/venv/bin/python -c /build/constraints.txt \
        --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple --index-strategy unsafe-best-match torch
COPY pyproject.toml README.md LICENSE NOTICE /build/
COPY ris_core /build/ris_core
COPY backend /build/backend
COPY weights /build/weights
RUN uv pip install --python /opt/venv/bin/python -c /build/constraints.txt '/build[samples]'

FROM installer AS label-studio-build
COPY constraints-label-studio.txt /build/
RUN uv venv /opt/venv \
    && uv pip install --python /opt/venv/bin/python -c /build/constraints-label-studio.txt label-studio

FROM python:${PYTHON} AS runtime
# A user without a password, a shell or files of its own; /data is the one place that it writes to, and /secrets one that
# the first start does. What installs packages goes.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip \
    && groupadd --system --gid 10001 ris \
    && useradd --system --uid 10001 --gid ris --no-create-home --shell /usr/sbin/nologin ris \
    && install -d -o ris -g ris -m 0700 /data /secrets
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /tmp
VOLUME /data
USER 10001:10001

FROM runtime AS label-studio
COPY --from=label-studio-build /opt/venv /opt/venv
COPY --chmod=0755 deploy/with-secrets /usr/local/bin/
ENTRYPOINT ["with-secrets"]
EXPOSE 8080
CMD ["label-studio", "start", "--no-browser", "--internal-host", "0.0.0.0", "--port", "8080"]

FROM runtime AS ris
COPY --from=ris-build /opt/venv /opt/venv
ENV RIS_HOME=/data RIS_CACHE=/data/fetched RIS_HOST=0.0.0.0
EXPOSE 9090
CMD ["gunicorn", "-c", "python:backend.web.gunicorn_conf", "backend.web.wsgi:app"]
