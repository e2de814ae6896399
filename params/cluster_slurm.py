"Run a batch on a Slurm cluster, from a machine that has `sbatch`: `python params/cluster_slurm.py params/quick.yaml --workers 20`"
import subprocess,sys
from pathlib import Path
from fastcore.script import call_parse
from rlrec.batch.command import main as rlrec

def stop(why): print(why, file=sys.stderr); sys.exit(2)

try: from dask_jobqueue import SLURMCluster
except ImportError: stop("dask-jobqueue is not installed; pip install 'rlrec[cluster]'")

def check(script:str):  # what will be submitted
    "Ask Slurm whether it would take it"
    try: asked = subprocess.run(['sbatch', '--test-only'], input=script, text=True, capture_output=True)
    except FileNotFoundError: stop('there is no sbatch on this machine; log in to one that has it')
    if asked.returncode: stop(' '.join(asked.stderr.split()))

@call_parse
def main(file:str,              # a batch, e.g. params/quick.yaml
         workers:int=4,         # most Slurm jobs at a time; each runs one job of the batch after the other
         memory:str='4GiB',     # of each Slurm job
         hours:int=24,          # of each Slurm job; more than any job of the batch takes
         queue:str=None,        # Slurm's partition
         account:str=None,      # who pays
         interface:str=None):   # network between the machines, e.g. ib0
    "Run a batch on Slurm jobs that come and go with its work"
    logs = Path('reports/runs/slurm-logs').resolve()
    with SLURMCluster(cores=1, processes=1, memory=memory, walltime=f'{hours}:00:00', queue=queue, account=account, interface=interface, job_name='rlrec',
                      log_directory=str(logs), scheduler_options=dict(dashboard_address=':0'), worker_extra_args=['--no-dashboard']) as cluster:
        check(cluster.job_script())
        cluster.adapt(minimum=1, maximum=workers, target_duration='1ms')   # as many as there are jobs, whatever Dask thinks how long these take
        print(f'`squeue --me` shows the queue, {logs} what the workers say', file=sys.stderr)
        rlrec(['run', file, '--engine', 'dask', '--scheduler', cluster.scheduler_address, '--jobs', str(workers)])
