# The page, the commands and the trainings, for any user id (docs/install.md#in-a-container):
#     docker build -t strdiffusion .                            for a CPU
#     docker build -t strdiffusion --build-arg DEVICE=cuda .    for NVIDIA GPUs, 6 GB more
FROM python:3.12-slim
ARG DEVICE=cpu

# a user id without a name has no home: everything that a library wants to keep goes to /tmp
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib GRADIO_TEMP_DIR=/tmp/gradio GRADIO_ANALYTICS_ENABLED=False STRDIFFUSION_CONTAINER=1

WORKDIR /strdiffusion

# the versions and hashes of the lock file; for a CPU, PyTorch's own index has the same versions without 6 GB of CUDA, with hashes of its own
COPY requirements-web.txt ./
RUN set -eu; \
    case "$DEVICE" in cpu|cuda) ;; *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1;; esac; \
    cp requirements-web.txt /tmp/locked.txt; \
    if [ "$DEVICE" = cpu ]; then \
        awk '/^[a-z]/ { keep = !/^(torch|torchvision|triton|nvidia-[a-z0-9-]*|cuda-[a-z]*)==/ } keep' requirements-web.txt > /tmp/locked.txt; \
        version() { sed -n "s/^$1==\([0-9.]*\).*/\1/p" requirements-web.txt; }; \
        pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$(version torch)" "torchvision==$(version torchvision)"; \
    fi; \
    pip install --no-deps --require-hashes -r /tmp/locked.txt; \
    rm /tmp/locked.txt

COPY setup.py MANIFEST.in README.md LICENSE ./
COPY strdiffusion ./strdiffusion
COPY scripts ./scripts
COPY configs ./configs
COPY weights ./weights
RUN set -eu; \
    pip install --no-deps --no-build-isolation .; \
    rm -rf build ./*.egg-info; \
    chmod -R a+rX .; \
    mkdir -p datasets runs results demo; \
    chmod 1777 . datasets runs results demo

USER 1000
EXPOSE 7860
CMD ["strdiffusion", "web", "--host", "0.0.0.0", "--port", "7860"]
