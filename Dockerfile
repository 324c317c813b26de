# The images of a federation: `agent`, which has what an agent computes with and no torch, and `server`, with all
# the rest: the server, the other commands, TensorBoard.
#   docker build --target agent -t fedpg-agent .
#   docker build --target server -t fedpg-server .
# Libraries are installed before the code is copied, so that a change of the code rebuilds in seconds. Each stage is part
# of an image that is tagged in the end: whatever builder is used, nothing without a name is left on the disk.
# Containers run on a read-only file system, where Python cannot keep what it compiles: without bytecode in the image,
# every start would compile everything again. pip compiles what it installs; Python's own library may come without.

FROM python:3.11-slim-bookworm AS agent-libraries
ENV PATH=/opt/fedpg/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_RETRIES=1 PIP_DEFAULT_TIMEOUT=60 PIP_ROOT_USER_ACTION=ignore PIP_PYTHON=/opt/fedpg/bin/python \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 MPLCONFIGDIR=/tmp GRPC_VERBOSITY=NONE
# The folders that volumes are mounted on must exist and belong to the user, or Docker makes them root's. A participant
# has its certificate in /certs; the service that makes all of them has everyone's folders in /everyone.
# Nothing is lost if a file of Python's library, such as one for its own tests, cannot be compiled.
RUN useradd --uid 10001 --create-home fedpg \
    && mkdir /runs /certs /everyone /modules && cd /everyone && seq -f 'agent-%.0f' 1000 | xargs mkdir authority server operator \
    && chown -R fedpg:fedpg /runs /certs /everyone \
    && { python -m compileall -q "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" || true; } \
    && python -m venv --without-pip /opt/fedpg
WORKDIR /build
COPY constraints.txt deploy/agent-requirements.txt ./
# What libraries bring along for those who develop with them (tests, documents, headers, types) is of no use here.
RUN pip install --no-deps --constraint constraints.txt --requirement agent-requirements.txt \
    && cd /opt/fedpg/lib/python3*/site-packages \
    && find . -type d '(' -name tests -o -name testdata -o -name include ')' -prune -exec rm -rf {} + \
    && find . -type f '(' -name '*.a' -o -name '*.pyi' -o -name '*_test.*' -o -name '*_tests.*.so' ')' -delete \
    && rm -rf Box2D/examples pygame/docs pygame/examples mujoco/doc mujoco/introspect mujoco/sysid mujoco/_simulate.* \
        numpy/distutils numpy/f2py numpy/_core/_simd.*

# An agent does without the packages of the server and of the other commands, and without their commands.
FROM agent-libraries AS agent
COPY pyproject.toml setup.py README.md LICENSE ./
COPY build_support ./build_support
COPY proto ./proto
COPY common ./common
COPY client ./client
RUN mkdir server lab && pip install --no-deps . && rm -rf build *.egg-info /opt/fedpg/bin/fedpg /opt/fedpg/bin/fedpg-server
USER fedpg
WORKDIR /runs
ENV TYPER_USE_RICH=0
ENTRYPOINT ["fedpg-agent"]

FROM agent-libraries AS server-libraries
# PyTorch's index of CPU builds. Where it cannot be reached, pip goes on without it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# torch by itself first: it is the largest layer and changes least.
RUN grep '^torch==' constraints.txt > torch.txt \
    && pip install --extra-index-url "$TORCH_INDEX" --constraint constraints.txt --requirement torch.txt \
    && rm -rf /opt/fedpg/lib/python3*/site-packages/torch/test /opt/fedpg/lib/python3*/site-packages/torch/include
COPY deploy/server-requirements.txt ./
RUN pip install --constraint constraints.txt --requirement server-requirements.txt

FROM server-libraries AS server
COPY pyproject.toml setup.py README.md LICENSE ./
COPY build_support ./build_support
COPY proto ./proto
COPY common ./common
COPY server ./server
COPY client ./client
COPY lab ./lab
RUN pip install --no-deps . && rm -rf build *.egg-info
USER fedpg
WORKDIR /runs
ENV FEDPG_LISTEN=0.0.0.0:50051 FEDPG_SERVER=localhost:50051
EXPOSE 50051
ENTRYPOINT ["fedpg-server"]
