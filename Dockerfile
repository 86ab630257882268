# Two images of one code base:
#   docker build --target api    .   the HTTP API; no torch in it
#   docker build --target worker .   runs jobs; torch for CPUs, or for CUDA with
#                                    --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/gradsmith/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    GRADSMITH_DATA_DIR=/data
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin gradsmith \
    && mkdir /data && chown gradsmith:gradsmith /data

# What the server needs, in a layer that changes with the dependencies alone: without the sources the two projects are
# installed empty.
FROM base AS dependencies
WORKDIR /src
COPY constraints.txt pyproject.toml README.md ./
COPY sdk/pyproject.toml sdk/README.md sdk/
RUN python3 -m venv /opt/gradsmith \
    && pip install --no-cache-dir -c constraints.txt ./sdk '.[s3]'

FROM dependencies AS worker-dependencies
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir -c constraints.txt --extra-index-url "${TORCH_INDEX}" './sdk[torch]' '.[worker]'

FROM dependencies AS api-build
COPY . .
RUN pip install --no-cache-dir --no-deps --force-reinstall ./sdk .

FROM worker-dependencies AS worker-build
COPY . .
RUN pip install --no-cache-dir --no-deps --force-reinstall ./sdk .

FROM base AS api
COPY --from=api-build /opt/gradsmith /opt/gradsmith
COPY deploy/healthy.py /opt/gradsmith/deploy/
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python3", "/opt/gradsmith/deploy/healthy.py", "api"]
CMD ["gradsmith-server", "api"]

FROM base AS worker
# One thread a process is the fastest for tasks this small, and idle OpenMP threads must not spin.
ENV OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE GRADSMITH_KERNELS=/opt/gradsmith/kernels
# A compiler, for rules of other sizes than those whose kernels are compiled below: without one they run through torch,
# several times as slowly. On GPUs Triton compiles its link to the driver with it.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=worker-build /opt/gradsmith /opt/gradsmith
COPY deploy/healthy.py /opt/gradsmith/deploy/
# The usual rules' kernels, for every instruction set of this kind of machine, whatever this CPU has.
RUN python3 -m gradsmith.rules.kernels.native "${GRADSMITH_KERNELS}"
USER 10001
# The build fails where this user could not run these kernels or compile others.
RUN python3 -m gradsmith.rules.kernels.native --check
WORKDIR /data
VOLUME /data
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python3", "/opt/gradsmith/deploy/healthy.py", "worker"]
CMD ["gradsmith-server", "worker", "--queues", "cpu"]
