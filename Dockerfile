# The backend: the web process (`svac-backend serve`), the worker (`svac-backend worker`) and the command line.
#
#   docker build -t svac-backend .                                        torch as pip finds it: with CUDA on x86-64
#   docker build -t svac-backend --build-arg TORCH_INDEX_URL=ADDRESS .    torch from PyTorch's index of CPU wheels
#   docker build -t svac-backend --build-arg EXTRAS=ray,s3 .              with optional parts, as pyproject.toml names them
FROM python:3.11-slim

ARG TORCH_INDEX_URL=

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app

# The order of scripts/setup.sh: torch first, then sam2 without its build isolation and its dependencies (they would
# pull torchvision), then the rest without these two.
COPY requirements.txt ./
RUN pip install --upgrade pip setuptools wheel \
    && pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$(grep -o '^torch==[^ #]*' requirements.txt)" \
    && SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps "$(grep -o '^sam2==[^ #]*' requirements.txt)" \
    && grep -v -e '^torch==' -e '^sam2==' requirements.txt > /tmp/rest.txt \
    && grep -o '^torch==[^ #]*' requirements.txt > /tmp/constraints.txt \
    && pip install -r /tmp/rest.txt -c /tmp/constraints.txt \
    && rm /tmp/rest.txt /tmp/constraints.txt

COPY pyproject.toml README.md LICENSE ./
COPY labelstudio_config ./labelstudio_config
COPY svac_backend ./svac_backend
RUN pip install --no-build-isolation --no-deps .

# Not as `.[ray]`: pip would then install sam2's dependencies, too.
ARG EXTRAS=
RUN python -c "import sys, tomllib; known = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; print(*(wanted for name in sys.argv[1].split(',') if name for wanted in known[name.strip()]), sep='\n')" "$EXTRAS" > /tmp/extras.txt \
    && pip install -r /tmp/extras.txt \
    && rm /tmp/extras.txt

# Both folders are volumes that several containers share; they belong to the user that the processes run as.
RUN useradd --create-home --uid 1000 svac \
    && install -d -o svac -g svac /svac/data /svac/files
USER svac
ENV SVAC_HOST=0.0.0.0 \
    SVAC_PORT=9090 \
    SVAC_DATA_DIR=/svac/data \
    SVAC_LABEL_STUDIO_FILES_ROOT=/svac/files
VOLUME ["/svac/data", "/svac/files"]
EXPOSE 9090

# 401: it is up, and asks for the password that SVAC_BASIC_AUTH_PASSWORD sets.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['SVAC_PORT']), timeout=4); c.request('GET', '/health'); sys.exit(c.getresponse().status not in (200, 401))"]

ENTRYPOINT ["svac-backend"]
CMD ["serve"]
