"What all tests share: quiet, single-threaded, and a cache of their own"
import atexit,os,shutil,tempfile

os.environ['RLREC_QUIET'] = '1'
for name in 'OMP_NUM_THREADS','OPENBLAS_NUM_THREADS','MKL_NUM_THREADS': os.environ[name] = '1'   # before numpy is imported
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
if not os.environ.get('RLREC_CACHE'):   # xdist's workers inherit the folder of the process that started them
    os.environ['RLREC_CACHE'] = tempfile.mkdtemp(prefix='rlrec-test-')
    atexit.register(shutil.rmtree, os.environ['RLREC_CACHE'], ignore_errors=True)

import pytest
from rlrec.core import data_dir

@pytest.fixture
def home(tmp_path, monkeypatch):
    "An empty RLREC_DATA and a cache of its own"
    monkeypatch.setenv('RLREC_DATA', str(tmp_path/'data')); monkeypatch.setenv('RLREC_CACHE', str(tmp_path/'cache'))
    (tmp_path/'data').mkdir()
    return tmp_path/'data'

def one_line(error): assert '\n' not in str(error.value) and ';' in str(error.value)     # what is wrong; what helps

@pytest.fixture
def real_data():
    "A function from a dataset's name to its folder in RLREC_DATA; skips where there is none"
    def folder(name):
        if not (data_dir()/name).exists(): pytest.skip(f'{name} is not in {data_dir()}')
        return data_dir()/name
    return folder

def pytest_collection_modifyitems(items):
    "Whatever looks at real files can be run alone: `-m real_data`"
    for item in items:
        if 'real_data' in getattr(item, 'fixturenames', ()): item.add_marker(pytest.mark.real_data)
