# The workflow with all that it needs, in one image:
#   docker build -t tmcnet /path/to/clone
#   docker run --rm -v "$PWD":/work tmcnet --cores 8 --configfile mine.yaml -- report
# With Apptainer: apptainer build tmcnet.sif docker-daemon:tmcnet:latest; apptainer run tmcnet.sif --cores 8 ...
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends gdal-bin git && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/tmcnet
COPY pyproject.toml constraints.txt README.md Snakefile ./
COPY tmcnet tmcnet/
COPY workflow workflow/
COPY config config/
COPY profiles profiles/
# Editable: the demo's settings are beside the package.
RUN pip install --no-cache-dir -c constraints.txt -e . && python -m compileall -q tmcnet
ENV HOME=/tmp MLFLOW_DISABLE_TELEMETRY=true DVC_NO_ANALYTICS=1
WORKDIR /work
ENTRYPOINT ["snakemake", "--snakefile", "/opt/tmcnet/Snakefile"]
CMD ["--cores", "all", "--", "report"]
