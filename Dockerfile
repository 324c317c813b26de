# One image for both ends of a federation; the targets differ only in what they start.
#   docker build --target server -t fedpg-server .
#   docker build --target agent -t fedpg-agent .
# Dependencies are installed before the code is copied, so that a change of the code rebuilds in seconds.
FROM python:3.11-slim-bookworm AS dependencies
# PyTorch's index of CPU builds. Where it cannot be reached, pip goes on without it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_RETRIES=1 PIP_DEFAULT_TIMEOUT=60
RUN python -m venv /opt/fedpg
WORKDIR /build
COPY constraints.txt ./
# torch by itself first: it is the largest layer and changes least.
RUN /opt/fedpg/bin/pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" torch
COPY pyproject.toml README.md ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > requirements.txt \
    && /opt/fedpg/bin/pip install --constraint constraints.txt --requirement requirements.txt \
    && find /opt/fedpg -name __pycache__ -prune -exec rm -rf {} +

FROM dependencies AS wheel
COPY proto ./proto
COPY common ./common
COPY server ./server
COPY client ./client
COPY lab ./lab
RUN /opt/fedpg/bin/pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm AS runtime
# The folders that volumes are mounted on must exist and belong to the user, or Docker makes them root's.
RUN useradd --uid 10001 --create-home fedpg \
    && mkdir -p /runs /certs && cd /certs && seq -f 'agent-%.0f' 1000 | xargs mkdir authority server \
    && chown -R fedpg:fedpg /runs /certs
COPY --from=dependencies /opt/fedpg /opt/fedpg
COPY --from=wheel /wheels /wheels
RUN /opt/fedpg/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl
ENV PATH=/opt/fedpg/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 MPLCONFIGDIR=/tmp
USER fedpg
WORKDIR /runs

FROM runtime AS agent
ENTRYPOINT ["fedpg-agent"]

FROM runtime AS server
ENV FEDPG_LISTEN=0.0.0.0:50051
EXPOSE 50051
VOLUME /runs
ENTRYPOINT ["fedpg-server"]
