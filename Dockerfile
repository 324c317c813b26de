# One image for both ends of a federation; the targets differ only in what they start.
#   docker build --target server -t fedpg-server .
#   docker build --target agent -t fedpg-agent .
# Dependencies are installed before the code is copied, so that a change of the code rebuilds in seconds.
# Containers run on a read-only file system, where Python cannot keep what it compiles: without bytecode in the image,
# every start would compile all of torch anew. pip compiles what it installs; Python's own library may come without.
FROM python:3.11-slim-bookworm AS requirements
# Apart, so that a change elsewhere in these files does not install everything anew.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > requirements.txt \
    && grep '^torch==' constraints.txt > torch.txt

FROM python:3.11-slim-bookworm AS dependencies
# PyTorch's index of CPU builds. Where it cannot be reached, pip goes on without it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_RETRIES=1 PIP_DEFAULT_TIMEOUT=60
RUN python -m venv /opt/fedpg
WORKDIR /build
# torch by itself first: it is the largest layer and changes least. Its tests and C++ headers are of no use here.
COPY --from=requirements torch.txt ./
RUN /opt/fedpg/bin/pip install --extra-index-url "$TORCH_INDEX" --requirement torch.txt \
    && rm -rf /opt/fedpg/lib/python3*/site-packages/torch/test /opt/fedpg/lib/python3*/site-packages/torch/include
COPY --from=requirements requirements.txt constraints.txt ./
RUN /opt/fedpg/bin/pip install --constraint constraints.txt --requirement requirements.txt

FROM dependencies AS wheel
COPY pyproject.toml setup.py README.md ./
COPY build_support ./build_support
COPY proto ./proto
COPY common ./common
COPY server ./server
COPY client ./client
COPY lab ./lab
RUN /opt/fedpg/bin/pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm AS runtime
# The folders that volumes are mounted on must exist and belong to the user, or Docker makes them root's. A participant
# has its certificate in /certs; the service that makes all of them has everyone's folders in /everyone.
RUN useradd --uid 10001 --create-home fedpg \
    && mkdir /runs /certs /everyone && cd /everyone && seq -f 'agent-%.0f' 1000 | xargs mkdir authority server \
    && chown -R fedpg:fedpg /runs /certs /everyone
# Nothing is lost if a file of the library, such as one for its own tests, cannot be compiled.
RUN python -m compileall -q "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" || true
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
ENV FEDPG_LISTEN=0.0.0.0:50051 FEDPG_SERVER=localhost:50051
EXPOSE 50051
ENTRYPOINT ["fedpg-server"]
