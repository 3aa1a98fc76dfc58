# `isochrone route` and `isochrone place`. Built from the top of the repository; see docs/how-to/several-servers.md.
FROM python:3.11-slim
WORKDIR /source
COPY pyproject.toml README.md LICENSE model.py ./
COPY backend backend
COPY predictor predictor
COPY profiler profiler
# Versions are pinned in pyproject.toml.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[route]' && rm -rf /source
WORKDIR /
USER 1000:1000
ENTRYPOINT ["isochrone"]
