"Run a batch on a Kubernetes cluster that has the Dask operator: `python params/cluster_kubernetes.py params/quick.yaml rlrec:0.1.0 projects`"
import os,secrets,sys
from pathlib import Path
from fastcore.script import call_parse
from rlrec.batch.command import main as rlrec

def container(name:str, command:str, memory:str, image:str, mount:str, **more)->dict:
    "A pod's only container: stands in the project's folder, and computes with one thread"
    env = [dict(name=k, value=str(Path(os.environ[k]).expanduser().resolve())) for k in ('RLREC_DATA', 'RLREC_CACHE') if k in os.environ]
    return dict(name=name, image=image, args=command.split(), workingDir=os.getcwd(), env=env, volumeMounts=[dict(name='project', mountPath=mount)],
                resources=dict(requests=dict(cpu='1', memory=memory), limits=dict(memory=memory)), **more)

def specification(name:str, image:str, claim:str, mount:str, workers:int, memory:str)->dict:
    "A DaskCluster, as the operator reads it"
    volumes = [dict(name='project', persistentVolumeClaim=dict(claimName=claim))]
    def pod(*args, **more): return dict(volumes=volumes, containers=[container(*args, image, mount, **more)])
    ports = {'tcp-comm': 8786, 'http-dashboard': 8787}
    scheduler = pod('scheduler', 'dask scheduler --host 0.0.0.0', '1Gi', ports=[dict(name=n, containerPort=p) for n,p in ports.items()],
                    readinessProbe=dict(httpGet=dict(port='http-dashboard', path='/health'), periodSeconds=1, timeoutSeconds=60))
    worker = pod('worker', 'dask worker --nthreads 1 --memory-limit 0 --no-dashboard --name $(DASK_WORKER_NAME)', memory)
    service = dict(type='ClusterIP', selector={'dask.org/cluster-name': name, 'dask.org/component': 'scheduler'}, ports=[dict(name=n, port=p, targetPort=n) for n,p in ports.items()])
    return dict(apiVersion='kubernetes.dask.org/v1', kind='DaskCluster', metadata=dict(name=name), spec=dict(worker=dict(replicas=workers, spec=worker), scheduler=dict(spec=scheduler, service=service)))

@call_parse
def main(file:str,               # a batch, e.g. params/quick.yaml
         image:str,              # with Python, this version of rlrec and its extra `dask`
         claim:str,              # PersistentVolumeClaim that holds the project; many pods write to it
         mount:str='.',          # where it is mounted here, and will be in the pods; the project's folder, or one above it
         workers:int=4,          # pods; each runs one job of the batch after the other
         memory:str='4Gi',       # of each pod
         namespace:str=None):    # None: that of the current context
    "Run a batch on pods that are there for it"
    try: from dask_kubernetes.operator import KubeCluster
    except ImportError: print('dask-kubernetes is not installed; pip install dask-kubernetes', file=sys.stderr); sys.exit(2)
    spec = specification(f'rlrec-{secrets.token_hex(3)}', image, claim, str(Path(mount).resolve()), workers, memory)
    with KubeCluster(custom_cluster_spec=spec, namespace=namespace, resource_timeout=600, quiet=True) as cluster:
        rlrec(['run', file, '--engine', 'dask', '--scheduler', cluster.scheduler_address, '--jobs', str(workers)])
