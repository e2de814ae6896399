"The rows of a batch: read, exported, compared, published"
import functools,json,re,shutil
from pathlib import Path
import numpy as np, pandas as pd, pyarrow as pa, pyarrow.parquet as pq, pytest
from scipy import stats
from rlrec.batch.engines import alone
from rlrec.batch.publish import LARGEST,MOST_LINES,batch_file,choose,publish
from rlrec.batch.records import records,write_json
from rlrec.batch.results import compare,compare_text,export_rows,rows,seed_values,tables
from rlrec.core import ConfigError,DataError,file_hash,stream
from rlrec.rows import COLUMNS

def frame(seed, dataset='coat', variant='', policies=('fair','loaded'), metrics=('heads','length'), shift=0., steps=(None,5,10)):
    rng = stream(seed, dataset, variant)
    return pd.DataFrame([dict(report='coin', dataset=dataset, seed=seed, policy=p, variant=variant, metric=m, step=t, value=float(rng.random())+shift*(p=='loaded'), n=9)
                         for p in policies for m in metrics for t in steps], columns=COLUMNS).astype({'step': 'Int64'})

def write(folder, frames, summary=False, **facts):
    "The folder of a batch of finished jobs, one per frame"
    jobs = []
    for f in frames:
        r = f.iloc[0]
        jobs.append(dict(path=f"coin/{r.dataset}/seed-{r.seed}" + (f'-{r.variant}' if r.variant else ''), report='coin', dataset=r.dataset, seed=int(r.seed), variant=r.variant))
        place = folder/jobs[-1]['path']; place.mkdir(parents=True, exist_ok=True)
        f.to_parquet(place/'rows.parquet')
        write_json(place/'run.json', dict(state='done', rows=file_hash(place/'rows.parquet'), parameters=dict(seed=int(r.seed)), key='k', commit='c0ffee', machine='a machine', seconds=2., peak_memory=2**27,
                                          versions=dict(python='3.11', torch='2'), parts=dict(package='p'), fingerprint=f'of-{r.dataset}', card=dict(dataset=r.dataset, users=290)) | facts)
    write_json(folder/'batch.json', dict(name=folder.name, jobs=jobs + ([dict(path='coin_summary', report='coin_summary', dataset=None, seed=None, variant='')] if summary else [])))
    return folder

@pytest.fixture(scope='module')
def large(tmp_path_factory):
    frames = [frame(s, d, v) for s in reversed(range(10)) for d in ('coat', 'ml-1m', 'digits') for v in ('', *(f'bias={b}' for b in range(9)))]
    return write(tmp_path_factory.mktemp('large')/'large', frames)

# ------------------------------------------------------------------------------------------------ reading

@functools.cache
def by_pandas(folder): return pd.concat([pd.read_parquet(folder/r['path']/'rows.parquet') for r in records(folder)], ignore_index=True)

def test_rows_are_those_that_pandas_joins_in_the_listings_order(large):
    mine,theirs = rows(large),by_pandas(large)
    assert len(mine)==300*12
    pd.testing.assert_frame_equal(mine, theirs)
    assert [str(t) for t in mine.dtypes]==['str', 'str', 'int64', 'str', 'str', 'str', 'Int64', 'float64', 'int64']

@pytest.mark.parametrize('where,keep', [
    (dict(metric='heads'), lambda f: f.metric=='heads'), (dict(step=None), lambda f: f.step.isna()), (dict(seed=[1, '3'], step=[5, None]), lambda f: f.seed.isin([1, 3]) & (f.step.isna() | (f.step==5))),
    (dict(seed=np.arange(2), policy={'fair'}, variant=''), lambda f: (f.seed<2) & (f.policy=='fair') & (f.variant=='')), (dict(dataset='elsewhere'), lambda f: f.seed<0), (dict(metric=[]), lambda f: f.seed<0)])
def test_filters(large, where, keep):
    theirs = by_pandas(large)
    theirs = theirs[keep(theirs).fillna(False).astype(bool)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows(large, **where), theirs)
    pd.testing.assert_frame_equal(rows(large, ['value', 'step'], **where), theirs[['value', 'step']])

def test_steps_that_were_written_as_decimals_or_as_nothing_at_all(tmp_path):
    folder = write(tmp_path/'b', [frame(0).astype({'step': 'float64'}), frame(1, steps=(None,)).astype({'step': object})])
    assert pa.types.is_null(pq.read_schema(folder/'coin/coat/seed-1/rows.parquet').field('step').type)
    assert rows(folder).step.dropna().tolist()==[5, 10]*4 and len(rows(folder, step=None))==8

def test_what_was_asked_for_wrongly(large, tmp_path):
    for ask in (lambda: rows(large, ['valeu']), lambda: rows(large, valeu=3)):
        with pytest.raises(ConfigError, match="unknown column 'valeu': did you mean 'value'"): ask()
    with pytest.raises(ConfigError, match="seed cannot be 'one'"): rows(large, seed='one')
    with pytest.raises(ConfigError, match="step cannot be 1.5"): rows(large, step=[1.5])
    with pytest.raises(ConfigError, match='not the folder of a batch'): rows(tmp_path)
    with pytest.raises(DataError, match='no job has finished'): rows(write(tmp_path/'b', [frame(0)], state='failed'))

def rewrite(file, how):
    if how=='cut': file.write_bytes(file.read_bytes()[:-20])
    elif how=='words': file.write_text('no table')
    elif how=='gone': file.unlink()
    elif how=='column': pd.read_parquet(file).drop(columns='n').to_parquet(file)
    elif how=='type': pd.read_parquet(file).assign(value='high').to_parquet(file)
    else:   # a sound foot and a broken body
        b = bytearray(file.read_bytes()); b[4:400] = bytes(396); file.write_bytes(b)

@pytest.mark.parametrize('how', ['cut', 'words', 'gone', 'column', 'type', 'body'])
@pytest.mark.parametrize('known', [True, False], ids=['hash', 'no-hash'])
def test_a_damaged_file_is_named_with_the_cure(tmp_path, how, known):
    folder = write(tmp_path/'b', [frame(s) for s in range(3)], **({} if known else dict(rows=None)))   # older records have no hash
    rewrite(folder/'coin/coat/seed-1/rows.parquet', how)
    with pytest.raises(DataError, match='seed-1.*(run the batch again|run its job again)') as e: rows(folder)
    assert '\n' not in str(e.value)
    if known: assert re.search('has gone' if how=='gone' else 'is damaged', str(e.value))

def test_jobs_that_have_not_finished_are_left_out(tmp_path):
    folder = write(tmp_path/'b', [frame(s) for s in range(4)])
    write_json(folder/'coin/coat/seed-1/run.json', dict(state='failed', error='no luck'))
    (folder/'coin/coat/seed-2/run.json').unlink()
    assert set(rows(folder).seed)=={0, 3} and tables(rows(folder))[0]['seeds']==[2]

# ------------------------------------------------------------------------------------------------ exporting

def test_an_exported_file_holds_the_same_rows(large, tmp_path):
    all_rows = rows(large)
    pd.testing.assert_frame_equal(pd.read_parquet(export_rows(large, tmp_path/'new'/'a.parquet')).astype({'step': 'Int64'}), all_rows)
    for file in (export_rows(large, tmp_path/'a.csv'), export_rows(large, tmp_path/'a.txt', csv=True)):
        again = pd.read_csv(file, keep_default_na=False, na_values={'step': ['']}, dtype={'step': 'Int64'})
        pd.testing.assert_frame_equal(again, all_rows, check_exact=True)
    assert len(pd.read_parquet(export_rows(large, tmp_path/'b.parquet', metric='heads', step=None)))==600

def test_an_export_is_whole_or_not_there(large, tmp_path, monkeypatch):
    (file := tmp_path/'a.parquet').write_text('older')
    def broken(table, f, **kw): Path(f).write_text('half'); raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(pq, 'write_table', broken)
        with pytest.raises(ConfigError, match='cannot be written .No space left on device'): export_rows(large, file)
    assert file.read_text()=='older' and [p.name for p in tmp_path.iterdir()]==['a.parquet']
    with pytest.raises(ConfigError, match='no row has policy=lodaed'): export_rows(large, file, policy='lodaed')
    with pytest.raises(ConfigError, match='cannot be written'): export_rows(large, tmp_path)

def test_an_export_does_not_get_in_the_way_of_summaries(tmp_path):
    from rlrec.analyses.rows import read_rows
    folder = write(tmp_path/'b', [frame(s) for s in range(2)])
    before = len(read_rows(folder)); export_rows(folder)
    assert len(read_rows(folder))==before==24

# ------------------------------------------------------------------------------------------------ comparing

def line(f, **where):
    for k,v in where.items(): f = f[f[k]==v]
    assert len(f)==1
    return f.iloc[0]

def test_paired_and_welch_against_scipy(tmp_path):
    a = write(tmp_path/'a', [frame(s) for s in range(5)])
    b = write(tmp_path/'b', [frame(s, shift=.5).assign(value=lambda f: f.value+.01*s*(f.policy=='loaded')) for s in reversed(range(5))])   # pairs are found by seed, not by place
    apart = write(tmp_path/'c', [frame(s) for s in range(7, 11)])
    def values(folder): return seed_values(rows(folder)).sort_index()[('coin', 'coat', '', 'loaded', 'heads')].to_numpy()
    got = line(compare(a, b, .9), policy='loaded', metric='heads')
    want = stats.ttest_rel(values(b), values(a)).confidence_interval(.9)
    assert (got.how, got.seeds, got.same, got.only)==('paired', 5, False, '') and (got.low, got.high)==pytest.approx(tuple(want)) and got.difference==pytest.approx(.52)
    got = line(compare(a, apart), policy='loaded', metric='heads')
    want = stats.ttest_ind(values(apart), values(a), equal_var=False).confidence_interval(.95)
    assert (got.how, got.seeds, got.seeds_a, got.seeds_b)==('Welch', 0, 5, 4) and (got.low, got.high)==pytest.approx(tuple(want))
    with pytest.raises(ConfigError, match='level must lie between 0 and 1'): compare(a, b, 95)

def test_identical_batches_and_the_last_bit(tmp_path):
    a,b = (write(tmp_path/n, [frame(s) for s in range(3)]) for n in 'ab')
    same = compare(a, b)
    assert same.same.all() and not same.difference.any() and not same.low.any() and not same.high.any()
    assert compare_text(same)=='4 values: 4 identical' and len(compare_text(same, identical=True).splitlines())==5
    nudged = write(tmp_path/'c', [frame(s).assign(value=lambda f: np.where((f.policy=='fair') & (f.metric=='heads') & (s==2), np.nextafter(f.value, 2), f.value)) for s in range(3)])
    assert compare_text(compare(a, nudged)).splitlines()[0]=='4 values: 3 identical, 1 differ'

@pytest.mark.filterwarnings('error')
def test_one_seed_and_the_same_difference_in_every_seed(tmp_path):
    one,other = (write(tmp_path/f'one{s}', [frame(0, shift=s)]) for s in (0., .5))
    got = compare(one, other)
    assert got.low.isna().all() and set(got.how)=={''} and line(got, policy='loaded', metric='heads').difference==pytest.approx(.5)
    assert '*' not in compare_text(got)
    def constant(v): return [frame(s).assign(value=v+s) for s in range(3)]
    got = compare(write(tmp_path/'a', constant(1.)), write(tmp_path/'b', constant(3.)))
    assert set(got.low)==set(got.high)=={2.} and compare_text(got).count('\n* ')==5   # four lines and the foot
    got = compare(write(tmp_path/'c', [frame(s).assign(value=1.) for s in (0, 1)]), write(tmp_path/'d', [frame(s).assign(value=3.) for s in (2, 3)]))
    assert set(got.how)=={'Welch'} and set(got.low)==set(got.high)=={2.}

def test_what_only_one_batch_has_is_said(tmp_path):
    a = write(tmp_path/'a', [frame(s, policies=('fair', 'loaded')) for s in range(4)])
    b = write(tmp_path/'b', [frame(s, policies=('fair', 'bent')) for s in range(3)])
    got = compare(a, b)
    assert (got.only.tolist(), got[got.only==''].same.tolist(), got[got.only==''].seeds.tolist())==(['', '', 'A', 'A', 'B', 'B'], [True]*2, [3]*2)
    text = compare_text(got)
    assert text.splitlines()[0]=='6 values: 2 identical, 2 only in A, 2 only in B (2 with seeds that only one batch has)'
    assert text.count('only in A  ')==2 and 'seeds: 4 in A, 3 in B, 3 in both' in compare_text(got, identical=True)
    (tmp_path/'unmeasured').mkdir()
    gone = write(tmp_path/'unmeasured'/'a', [frame(s).assign(value=lambda f: f.value.where(f.policy=='fair')) for s in range(4)])   # a value that could be measured before
    assert compare(a, gone).only.tolist()==['', '', 'A', 'A']
    curves = write(tmp_path/'curves', [frame(s, steps=(5,)) for s in range(2)])
    assert compare_text(compare(curves, curves))=='0 values: none'

def test_files_and_published_folders_can_be_compared(tmp_path):
    (tmp_path/'reports').mkdir()
    a = write(tmp_path/'reports'/'runs'/'a', [frame(s) for s in range(3)])
    for other in (export_rows(a), export_rows(a, tmp_path/'else.parquet'), publish(a)): assert compare_text(compare(other, a))=='4 values: 4 identical'
    with pytest.raises(DataError, match='cannot be read'): compare(a, export_rows(a, csv=True))
    with pytest.raises(ConfigError, match='not the folder of a batch'): compare(a, tmp_path/'nowhere')

# ------------------------------------------------------------------------------------------------ publishing

PNG = bytes.fromhex('89504e470d0a1a0a')

@pytest.fixture
def coins(tmp_path):
    "A finished batch with a summary, in a project"
    for sub in 'reports','params': (tmp_path/sub).mkdir()
    (tmp_path/'params'/'broken.yaml').write_text('name: [')
    (tmp_path/'params'/'small coins.yaml').write_text('name: coins\njobs: []\n')
    folder = write(tmp_path/'reports'/'runs'/'coins', [frame(s, d) for d in ('coat', 'digits') for s in range(3)], summary=True)
    add_summary(folder/'coin_summary')
    return folder

def add_summary(place):
    (place/'figures').mkdir(parents=True)
    write_json(place/'run.json', dict(state='done', seconds=1.))
    for name,text in {'report.html': '<h1>Coins</h1>', 'report.ipynb': '{}', 'shares-coat-bias=0.6;mode=x.md': '| policy | heads |\n', 'shares.csv': 'policy,heads\n'}.items(): (place/name).write_text(text)
    (place/'figures'/'heads [all].png').write_bytes(PNG)

def contents(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}

def test_a_published_folder(coins):
    place = publish(coins)
    assert place==coins.parent.parent/'published'/'coins'
    assert list(contents(place))==['README.md', 'figures/heads [all].png', 'report.html', 'rows.parquet', 'runs.json', 'shares-coat-bias=0.6;mode=x.md', 'shares.csv']
    pd.testing.assert_frame_equal(pd.read_parquet(place/'rows.parquet').astype({'step': 'Int64'}), rows(coins))
    assert pq.read_metadata(place/'rows.parquet').row_group(0).column(0).compression=='ZSTD'
    told = json.loads((place/'runs.json').read_text())
    assert told['common']==dict(commit='c0ffee', versions=dict(python='3.11', torch='2'), machine='a machine') and set(told['data'])=={'of-coat', 'of-digits'}
    assert len(told['jobs'])==6 and told['jobs'][0]==dict(report='coin', dataset='coat', seed=0, variant='', state='done', parameters=dict(seed=0), key='k', seconds=2., peak_memory=2**27, fingerprint='of-coat')
    assert sum(map(len, contents(place).values())) < 30_000

def test_the_index_leads_to_everything_and_says_where_it_comes_from(coins):
    from urllib.parse import unquote
    place = publish(coins)
    text = (place/'README.md').read_text()
    links = [unquote(l) for l in re.findall(r'\]\(([^)]+)\)', text)]
    assert set(links)==set(contents(place))-{'README.md'}
    for part in ('6 jobs: coin', 'all 72 rows', 'Commit c0ffee', 'torch 2', 'a machine', '7 notebooks took 13 s', 'Coat: for research', 'CC BY 4.0', 'rlrec data get coat\nrlrec run params/small coins.yaml'): assert part in text, part
    assert 'Not complete' not in text and str(coins.parent.parent) not in text

@pytest.mark.parametrize('at', ['read_table', 'write_json', 'shutil.copyfile', 'index_md', 'replace_folder'])
def test_a_failure_leaves_the_older_folder(coins, monkeypatch, at):
    before = contents(publish(coins))
    (coins/'coin_summary'/'new.md').write_text('| policy |\n')
    def fails(*args, **kw): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(f'rlrec.batch.publish.{at}', fails)
        with pytest.raises(ConfigError, match='published/coins: cannot be written .No space'): publish(coins)
    home = coins.parent.parent/'published'
    assert contents(home/'coins')==before and [p.name for p in home.iterdir()]==['coins']
    (coins/'coin_summary'/'shares.csv').unlink()
    assert {'new.md'}==set(contents(publish(coins)))-set(before) and not (home/'coins'/'shares.csv').exists()

def test_what_a_killed_attempt_left_is_put_right(coins):
    home = publish(coins).parent
    (home/'coins').rename(home/'.coins.old'); (home/'.coins.77.tmp').mkdir(); (home/'.coinage.77.tmp').mkdir()
    write_json(coins/'coin/coat/seed-0/run.json', dict(state='failed'))
    with pytest.raises(ConfigError): publish(coins)
    publish(coins, partial=True)
    assert sorted(p.name for p in home.iterdir())==['.coinage.77.tmp', 'coins']

def test_an_incomplete_batch_is_refused(coins):
    write_json(coins/'coin/coat/seed-0/run.json', dict(state='failed', error='no luck', seconds=1.))
    shutil.rmtree(coins/'coin/coat/seed-1')
    rewrite(coins/'coin/coat/seed-2/rows.parquet', 'cut')
    with pytest.raises(ConfigError, match='1 job is failed, 1 job is missing, 1 job is damaged; .*--partial') as e: publish(coins)
    assert '\n' not in str(e.value) and not (coins.parent.parent/'published').exists()
    place = publish(coins, partial=True)
    text = (place/'README.md').read_text()
    assert '3 of its notebooks have no result here' in text and '- coin/coat/seed-2: damaged' in text and set(pd.read_parquet(place/'rows.parquet').dataset)=={'digits'}
    assert [j['state'] for j in json.loads((place/'runs.json').read_text())['jobs']][:2]==['failed', 'missing']
    shutil.rmtree(coins/'coin')
    with pytest.raises(DataError, match='no job has finished'): publish(coins, partial=True)

def test_a_batch_that_is_being_run_is_refused(coins):
    with alone(coins), pytest.raises(ConfigError, match='it is being run at the moment'): publish(coins)
    publish(coins)

def test_no_other_folder_is_replaced(coins, tmp_path):
    for other in (tmp_path/'params', coins, coins.parent, tmp_path/'params'/'broken.yaml'):
        with pytest.raises(ConfigError, match='is there, and is not a published batch'): publish(coins, other)
    (tmp_path/'empty').mkdir()
    assert contents(publish(coins, tmp_path/'empty'))==contents(publish(coins, tmp_path/'some'/'new'))

def test_data_and_strange_files_stay_at_home(coins, tmp_path, capsys):
    place = coins/'coin_summary'
    (place/'ratings.md').write_text('| user | item | value |\n| --- | --- | --- |\n| 3 | 5 | 4 |\n')
    (place/'log.csv').write_text('policy\n'*(MOST_LINES+1))
    (place/'shown.md').write_text('# nothing')
    (place/'report.html').write_text('<table><thead><tr><th></th><th>user_id</th><th class="a">movie</th></tr></thead><tr><td>1</td></tr></table>')
    (place/'agent.safetensors').write_bytes(b'weights'); (place/'README.md').write_text('mine')
    with open(place/'figures'/'huge.png', 'wb') as f: f.truncate(LARGEST+1)
    (place/'figures'/'linked.png').symlink_to(tmp_path/'params'/'broken.yaml')
    (tmp_path/'data').mkdir(); (tmp_path/'data'/'ratings.csv').write_text('a'); (place/'more').symlink_to(tmp_path/'data')
    published,said = publish(coins),capsys.readouterr().err
    text = (published/'README.md').read_text()
    left = 'ratings.md', 'log.csv', 'report.html', 'agent.safetensors', 'README.md', 'figures/huge.png', 'figures/linked.png', 'more'
    for name in left: assert f'- coin_summary/{name}: ' in text and f'left out coin_summary/{name}: ' in said, name
    assert set(choose(place)[1])==set(left) and not set(left)-{'README.md'} & set(contents(published)) and 'shown.md' in contents(published)

def test_several_summaries_have_a_folder_each(coins):
    listing = json.loads((coins/'batch.json').read_text())
    listing['jobs'].append(dict(path='dice_summary', report='dice_summary', dataset=None, seed=None, variant=''))
    write_json(coins/'batch.json', listing); add_summary(coins/'dice_summary')
    place = publish(coins)
    assert contents(place/'coin')==contents(place/'dice') and '](dice/figures/heads%20%5Ball%5D.png)' in (place/'README.md').read_text()

def test_a_batch_without_summary_or_batch_file(tmp_path):
    (tmp_path/'reports').mkdir()
    text = (publish(write(tmp_path/'reports'/'runs'/'plain', [frame(0, 'my-shop')]))/'README.md').read_text()
    assert 'has no batch file for `plain`' in text and 'its licence is not known here' in text and batch_file(tmp_path, 'plain') is None

def test_jobs_that_no_summary_joins_show_themselves(tmp_path):
    "The first seed of each dataset and variant, and nothing that could be data"
    (tmp_path/'reports').mkdir()
    folder = write(tmp_path/'reports'/'runs'/'plain', [frame(s, d) for d in ('coat', 'digits') for s in (2, 1)])
    for p in folder.glob('coin/*/seed-*'):
        (p/'figures').mkdir(); (p/'figures'/'heads.png').write_bytes(PNG); (p/'report.html').write_text(f'<h1>{p.name}</h1>'); (p/'report.ipynb').write_text('{}')
    (folder/'coin/coat/seed-1/ratings.md').write_text('| user | item | value |\n')
    place = publish(folder); shown = [n for n in contents(place) if n[:4]=='coin']
    assert shown==[f'coin/{d}/seed-1/{n}' for d in ('coat','digits') for n in ('figures/heads.png','report.html')]
    text = (place/'README.md').read_text()
    assert '](coin/coat/seed-1/figures/heads.png)' in text and '- coin/coat/seed-1/ratings.md: ' in text

def test_links_of_a_published_page_lead_where_they_led(tmp_path):
    (tmp_path/'reports').mkdir(); (tmp_path/'nbs').mkdir(); (tmp_path/'nbs'/'a.ipynb').write_text('{}')
    folder = write(tmp_path/'reports'/'runs'/'plain', [frame(1)]); job = folder/'coin/coat/seed-1'; (job/'figures').mkdir(); (job/'figures'/'heads.png').write_bytes(PNG)
    (job/'report.html').write_text('<a href="../../../../../../nbs/a.ipynb">, <a href="figures/heads.png">, <a href="https://example.org/nbs/a.ipynb">, <a href="gone.md">')
    place = publish(folder)
    assert (place/'report.html').read_text()=='<a href="../../../nbs/a.ipynb">, <a href="figures/heads.png">, <a href="https://example.org/nbs/a.ipynb">, <a href="gone.md">'
    assert (place/'../../../nbs/a.ipynb').exists()
