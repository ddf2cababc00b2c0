# The two images of Codemode. Works with the classic builder (Docker Engine 20.10) and with BuildKit, on any
# base image that has Python 3.11 or newer with its venv module.
#
#   codemode-executor image build                       the sandbox image, with its tag and labels (recommended)
#   docker build --target sandbox -t my-sandbox .       the same image by hand
#   docker build --target executor -t codemode-executor .
#
# Behind a proxy: put the company's CA certificates (PEM, *.crt) into sandbox-image/certificates/, hand over
# HTTPS_PROXY and PIP_INDEX_URL with --build-arg, and add --network host if only the host reaches the proxy.

ARG BASE_IMAGE=python:3.12-slim


# ---- packages: what user code can import, in a virtual environment without pip --------------------------------
# A stage of its own, so that certificates, index addresses (which may hold a password) and pip stay out of the
# image that user code sees, and out of its history.
FROM ${BASE_IMAGE} AS packages
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_DEFAULT_TIMEOUT
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

COPY sandbox-image/certificates/ /build/certificates/
# pip gets the base image's certificates plus the ones handed over. An empty folder is the usual case.
RUN python3 -m venv /build/pip \
 && python3 -m venv --without-pip /opt/codemode/venv \
 && stock=$(/build/pip/bin/python -c "from pip._vendor import certifi; print(certifi.where())") \
 && { cat "$stock" || true; find /build/certificates -name '*.crt' -exec cat {} +; } > /build/ca.pem
ENV PIP_CERT=/build/ca.pem

COPY constraints.txt /build/
RUN /build/pip/bin/pip --python /opt/codemode/venv/bin/python install --no-compile --prefer-binary \
      -c /build/constraints.txt ipython matplotlib numpy pandas pyarrow

# Requirements of the user's own come after the pinned ones and may override them: their say is final.
COPY sandbox-image/requirements.txt /build/
RUN /build/pip/bin/pip --python /opt/codemode/venv/bin/python install --no-compile -r /build/requirements.txt \
 && /build/pip/bin/pip --python /opt/codemode/venv/bin/python check

# The image is read-only when it runs: what Python would cache on first use has to be there. Bytecode that is
# not checked against its source spares a start several hundred stat calls.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/tests/' /opt/codemode/venv/lib \
 && MPLCONFIGDIR=/opt/codemode/font-cache /opt/codemode/venv/bin/python -c "import matplotlib.font_manager" \
 && chmod -R a+rX /opt/codemode


# ---- sandbox --------------------------------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS sandbox
# No set-uid or set-gid bit is left, so there is no program that runs with more rights than the user has.
# The standard library of Docker's own Python images comes without bytecode; without this line every start in a
# read-only image would compile it again.
RUN find / -xdev -perm /6000 -exec chmod a-s {} + \
 && groupadd --non-unique --gid 1000 sandbox \
 && useradd --non-unique --uid 1000 --gid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin sandbox \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      -x '/(dist-packages|ensurepip|idlelib|lib2to3|site-packages|test|tests|turtledemo)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=packages /opt/codemode /opt/codemode

ENV HOME=/tmp \
    LANG=C.UTF-8 \
    PATH=/opt/codemode/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
ENTRYPOINT ["/opt/codemode/venv/bin/python", "-I", "-c", "import sys; sys.path.append('/opt/codemode'); from codemode_sandbox.__main__ import main; main()"]

# Last, because it changes most: after an edit of the runner only these two small layers are built again.
COPY executor/codemode_sandbox /opt/codemode/codemode_sandbox
RUN chmod -R a+rX /opt/codemode/codemode_sandbox \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/codemode/codemode_sandbox
USER 1000:1000


# ---- service: the distribution, installed for the executor image ----------------------------------------------
FROM ${BASE_IMAGE} AS service
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_DEFAULT_TIMEOUT
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY --from=packages /build/ca.pem /build/ca.pem
ENV PIP_CERT=/build/ca.pem
COPY . /build/source
RUN python3 -m venv /build/pip \
 && python3 -m venv --without-pip /opt/codemode/venv \
 && /build/pip/bin/pip --python /opt/codemode/venv/bin/python install --prefer-binary \
      -c /build/source/constraints.txt "/build/source[metrics,reflection]" \
 && chmod -R a+rX /opt/codemode


# ---- executor: the service alone ------------------------------------------------------------------------------
# It starts sandboxes through the engine's socket, which is as good as root on the host, whatever the user in here
# is: see docker-compose.yml. The recommended place for the service is the host itself.
FROM ${BASE_IMAGE} AS executor
RUN find / -xdev -perm /6000 -exec chmod a-s {} + \
 && groupadd --non-unique --gid 1000 codemode \
 && useradd --non-unique --uid 1000 --gid 1000 --create-home --shell /usr/sbin/nologin codemode
COPY --from=service /opt/codemode/venv /opt/codemode/venv
ENV LANG=C.UTF-8 PATH=/opt/codemode/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /home/codemode
ENTRYPOINT ["codemode-executor"]
CMD ["serve"]
