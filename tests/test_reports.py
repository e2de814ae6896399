"Every report template, run with two seeds on embedded data, uses the seed it was given; the summary joins them"
import json
from pathlib import Path
import matplotlib.pyplot as plt, pandas as pd, papermill as pm, pytest
from execnb.nbio import dict2nb
from execnb.shell import CaptureShell
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from rlrec.core import RlrecError

ROOT = Path(__file__).parent.parent
COLD = dict(dataset='synthetic-movielens', encoder='tfidf-svd')
TINY = {  # report -> parameters, with an embedded dataset, that finish in seconds
    'audit': dict(dataset='synthetic-coat', size=.3, tags='synthetic-kuairec', tags_size=.04, methods=['ucb'], trainings=2, epochs=1, steps_per_epoch=3000, interactions=640),
    'ceilings': COLD | dict(users=20, train_episodes=20, horizon=5),
    'ceilings_feed': dict(dataset='synthetic-kuairec', size=.04, width=2, eval_users=40),
    'cold_start': COLD | dict(train_episodes=40, eval_episodes=40),
    'cold_start_grid': COLD | dict(train_episodes=20, eval_episodes=20, learning_rates=[.001], gammas=[.98, 0.]),
    'cold_start_sensitivity': COLD | dict(interactions=100, eval_episodes=20, slates=[5], horizons=[3, 5]),
    'cold_start_shaped': COLD | dict(train_episodes=20, eval_episodes=20),
    'darlr': dict(dataset='synthetic-coat', size=.3, epochs=2, steps_per_epoch=3000, darlr=dict(k_sel=5)),
    'darlr_ablation': dict(dataset='synthetic-coat', size=.3, epochs=2, steps_per_epoch=3000, darlr=dict(k_sel=5), variants=['full','static-reward','static-uncertainty','nearest']),
    'darlr_dynamic_vs_static': dict(dataset='synthetic-coat', size=.3, epochs=1, steps_per_epoch=3000, inits=['roler'], writes=['off','live'], darlr=dict(k_sel=5)),
    'darlr_search': dict(dataset='synthetic-coat', size=.3, trials=3, epochs=1, steps_per_epoch=3000, repeats=1, fresh=1),
    'darlr_sensitivity': dict(dataset='synthetic-coat', size=.3, epochs=2, steps_per_epoch=3000, darlr=dict(k_sel=5), sweeps=['k_sel','lambda_uncertainty','lambda_entropy'], k_sel=[3], lambda_uncertainty=[.5]),
    'degeneracy': COLD | dict(feed='synthetic-coat', size=.3, trainings=3, train_episodes=12, warmup=40, eval_episodes=30, rewards=['hit','price'], agents=['a2c','dqn'], interactions=320, eval_states=200, epochs=1, steps_per_epoch=3000),
    'feed': dict(dataset='synthetic-kuairec', size=.02, epochs=2, steps_per_epoch=3000, methods=['dorl','gt','ucb','crr']),
    'feed_exit_rule': dict(dataset='synthetic-kuairec', size=.02, epochs=1, steps_per_epoch=3000, methods=['mbpo','bcq'], exit_windows=[1,4]),
    'irl': COLD | dict(users=6, horizon=4, train_episodes=20, iterations=3, fit_steps=20),
    'leaks': COLD | dict(feeds={'synthetic-coat': {}}, walkers=20, steps=5, train_episodes=20, eval_episodes=40, policies=['heuristic','random','popularity']),
    'policy_entropy': dict(dataset='synthetic-music', interactions=640, eval_every=64, eval_states=300),
    'policy_entropy_sample': dict(dataset='digits', interactions=400, eval_every=50, eval_states=100, pg_rates=[1.5], ql_rates=[.15, .5], eps=[0.]),
    'report_card': COLD | dict(policies=['dqn','random'], train_episodes=20, interactions=320, bandit_policies=['a2c'], size=.3, sb3=['DQN'], sb3_steps=120, eval_seeds=2, eval_episodes=20, ceiling_users=5),
    'ties': COLD | dict(trainings=2, train_episodes=20, eval_episodes=40, policies=['heuristic','dqn','random'], studies=20, resamples=20, sizes=[3]),
    'update_rules': dict(dataset='digits', batch=8, states=10, learning_rates=[.01, .001], agents=['a2c', 'dqn']),
}
FAMILIES = ['cold_start'],['policy_entropy','policy_entropy_sample'],['feed','feed_exit_rule'],['darlr','darlr_ablation','darlr_sensitivity','darlr_dynamic_vs_static']   # whose seeds a summary joins
TEMPLATES = sorted(p.stem for p in (ROOT/'reports').glob('*.ipynb') if not p.stem.endswith('_summary'))

def run(name, out, **parameters):
    "In this process, as the notebooks in tests/test_ground.py: what all reports import is imported once (a batch gives each a kernel, see tests/test_batch.py)"
    nb = parameterize_notebook(load_notebook_node(str(ROOT/'reports'/f'{name}.ipynb')), dict(out=str(out), **parameters))
    with plt.rc_context():
        plt.rcdefaults()
        CaptureShell().run_all(dict2nb(nb), exc_stop=True)
        plt.close('all')
    return pd.read_parquet(out/'rows.parquet') if (out/'rows.parquet').exists() else None

@pytest.fixture(scope='session')
def runs(tmp_path_factory): return tmp_path_factory.mktemp('runs')

@pytest.mark.parametrize('name', TEMPLATES)
def test_every_report_has_its_parameters_tagged(name):
    "Without the tag papermill adds a cell at the top, and the defaults below it win"
    cells = json.loads((ROOT/'reports'/f'{name}.ipynb').read_text())['cells']
    tagged = [c for c in cells if 'parameters' in c['metadata'].get('tags', [])]
    assert len(tagged)==1 and cells.index(tagged[0])<=1
    assert {'dataset','seed','out'} <= set(pm.inspect_notebook(ROOT/'reports'/f'{name}.ipynb'))

def together(family): return pytest.mark.xdist_group(f'{family}-reports')   # one process of the tests makes the runs and joins them

@pytest.mark.parametrize('name', [pytest.param(n, marks=[together(f[0]) for f in FAMILIES if n in f]) for n in TEMPLATES])
def test_two_seeds_are_two_seeds(name, runs):
    assert name in TINY, f'give {name} a tiny setting here'
    rows = {}
    for seed in (3, 4):
        dataset = TINY[name]['dataset']
        out = runs/name/dataset/f'seed-{seed}'; out.mkdir(parents=True)
        rows[seed] = run(name, out, seed=seed, **TINY[name])
        assert set(rows[seed].seed)=={seed} and set(rows[seed].report)=={name} and set(rows[seed].dataset)=={dataset}
        assert list((out/'figures').glob('*.png'))
    same = rows[3].merge(rows[4], on=['policy','variant','metric','step'])
    assert len(same)==len(rows[3]) and (same.value_x!=same.value_y).any()

def finished(name, runs):
    "Two runs of a report in the session's folder: those of the test above, or made now"
    for seed in (3, 4):
        out = runs/name/TINY[name]['dataset']/f'seed-{seed}'
        if not (out/'rows.parquet').exists(): out.mkdir(parents=True, exist_ok=True); run(name, out, seed=seed, **TINY[name])

@together('cold_start')
def test_summary_joins_the_seeds(runs):
    finished('cold_start', runs)
    out = runs/'cold_start_summary'; out.mkdir()
    run('cold_start_summary', out, folder=str(runs))
    assert {'figure1-learning-synthetic-movielens.png','figure2-comparison-synthetic-movielens.png','figure3-shares-synthetic-movielens.png'} <= {p.name for p in (out/'figures').iterdir()}
    table = (out/'table1-synthetic-movielens.md').read_text()
    assert '(2)' in table and '5.620' in table and 'dqn' in table

@together('policy_entropy')
def test_entropy_summary_joins_the_seeds(runs):
    for name in ('policy_entropy', 'policy_entropy_sample'): finished(name, runs)
    out = runs/'policy_entropy_summary'; out.mkdir()
    run('policy_entropy_summary', out, folder=str(runs))
    assert {'curves-synthetic-music.png','histograms-synthetic-music.png','verdict.png'} <= {p.name for p in (out/'figures').iterdir()}
    finals,verdict = ((out/f'{n}.md').read_text() for n in ('finals-synthetic-music', 'verdict'))
    assert '(2)' in finals and 'published' not in finals and 'dqn' in finals      # another length than the paper's: its numbers must not stand beside
    assert all(f'synthetic-music | {a}' in verdict for a in ('a2c', 'ppo'))

@together('feed')
def test_feed_summary_joins_the_seeds(runs):
    for name in ('feed', 'feed_exit_rule'): finished(name, runs)
    out = runs/'feed_summary'; out.mkdir()
    run('feed_summary', out, folder=str(runs))
    assert {'curves-synthetic-kuairec.png','popularity-synthetic-kuairec.png'} <= {p.name for p in (out/'figures').iterdir()}
    finals,rule = ((out/f'{n}-synthetic-kuairec.md').read_text() for n in ('finals','exit-rule'))
    assert '(2)' in finals and 'oracle-bound' in finals and 'published' not in finals and 'N = 4' in rule
    assert not list(out.glob('same-part-*'))      # a twin, and another schedule: no published curve belongs beside it

@together('darlr')
def test_darlr_summary_joins_the_seeds(runs):
    for name in ('darlr_ablation', 'darlr_sensitivity', 'darlr_dynamic_vs_static', 'darlr'): finished(name, runs)
    out = runs/'darlr_summary'; out.mkdir()
    run('darlr_summary', out, folder=str(runs))
    assert {'ablation-synthetic-coat.png','sensitivity-synthetic-coat.png','popularity-synthetic-coat.png'} <= {p.name for p in (out/'figures').iterdir()}
    table,answers,moves = ((out/f'{n}.md').read_text() for n in ('ablation-synthetic-coat','answers','sensitivity-synthetic-coat'))
    assert '(2)' in table and 'static-uncertainty' in table and 'paper' not in table      # a twin: the paper's numbers must not stand beside
    assert 'Does the learned selector beat nearest neighbours?' in answers and 'k_sel = 3, minus 5' in moves

@together('darlr')
def test_darlr_summary_refuses_trainings_of_different_lengths(runs, tmp_path):
    finished('darlr_ablation', runs)
    for seed in (3, 4):
        rows = pd.read_parquet(runs/'darlr_ablation'/'synthetic-coat'/f'seed-{seed}'/'rows.parquet')
        (tmp_path/f'seed-{seed}').mkdir()
        (rows if seed==3 else rows[rows.step.isna() | (rows.step<6000)]).to_parquet(tmp_path/f'seed-{seed}'/'rows.parquet')
    with pytest.raises(RlrecError, match='trainings of different lengths'): run('darlr_summary', tmp_path, folder=str(tmp_path))

def test_entropy_summary_shows_settings_apart_and_joins_batches(runs):
    "Two batches, one of them with an entropy bonus: joined by a pattern, and never averaged"
    other = runs.parent/'second'
    for place,extra in ((runs.parent/'first', {}), (other, dict(entropy_bonus=.1))):
        out = place/'policy_entropy'/'synthetic-music'/'seed-3'; out.mkdir(parents=True)
        rows = run('policy_entropy', out, seed=3, agents=['a2c'], **TINY['policy_entropy'], **extra)
        if extra: rows.assign(variant=[f'entropy_bonus=0.1;{v}' if v else 'entropy_bonus=0.1' for v in rows.variant]).to_parquet(out/'rows.parquet')
    out = runs.parent/'joined'; out.mkdir()
    run('policy_entropy_summary', out, folder=str(runs.parent/'[fs][ie]*'))
    assert {'finals-synthetic-music.md','finals-synthetic-music-entropy_bonus-0.1.md'} <= {p.name for p in out.iterdir()}
    assert (out/'figures'/'bonus-synthetic-music.png').exists()
