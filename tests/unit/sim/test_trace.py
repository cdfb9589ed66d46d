import pytest
from tests.unit.sim.traces import MACHINES, share, whole

from hami.model.errors import Malformed
from hami.sim.traces import mapping, trace
from hami.sim.traces.inflate import inflate
from hami.sim.traces.trace import UNKNOWN, Job, Machine, Trace

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn1,64000,262144,2,P100\nn2,96000,1000,8,G2\n"
PODS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
    "p1,12000,16384,1,1000,,LS,Running,0,12537496,0\n"
    "p2,6000,12288,1,460,V100M16|V100M32,LS,Running,427061,12902960,427061\n"
)


def test_our_own_lines_come_back_as_they_were_written() -> None:
    written = Trace(MACHINES, (share("s", 300, arrives=1.5, leaves=9.0), whole("w", 2, models=("T4",))))
    assert trace.decode(trace.encode(written), "t.jsonl") == written


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("{", "t.jsonl:2"),
        ('{"pod": {"name": "p", "gpus": 1}}', "t.jsonl:2"),
        ('{"pod": {"name": "p", "cards": -1}}', "t.jsonl:2.cards"),
        ('{"pod": {"name": "p", "card_core": 101}}', "t.jsonl:2.card_core"),
        ('{"pod": {"name": "p", "card_percent": 101}}', "t.jsonl:2.card_percent"),
        ('{"pod": {"name": "p", "card_percent": 10, "card_mem": 1}}', "t.jsonl:2.card_percent"),
        ('{"pod": {"name": "p", "arrives": 5, "leaves": 4}}', "t.jsonl:2.leaves"),
        ('{"node": {"name": "n", "cpu_milli": 1, "mem_mib": 1, "cards": 1, "card_mem": 0}}', "t.jsonl:2.card_mem"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: str, path: str) -> None:
    with pytest.raises(Malformed) as fault:
        trace.decode(f"\n{line}\n", "t.jsonl")
    assert fault.value.path == path


def test_openb_tables_are_read_by_their_own_columns() -> None:
    machines = mapping.machines(NODES, mapping.parse(mapping.OPENB_NODES, Machine), "nodes.csv")
    jobs = mapping.jobs(PODS, mapping.parse(mapping.OPENB_PODS, Job), "pods.csv")
    assert machines == (Machine("n1", 64000, 262144, 2, "P100"), Machine("n2", 96000, 1000, 8, "G2"))
    assert jobs[0] == Job("p1", 12000, 16384, 1, 1000, arrives=0.0, leaves=12537496.0)
    assert jobs[1].models == ("V100M16", "V100M32")


def test_a_list_without_times_is_read_too() -> None:
    short = "\n".join(",".join(line.split(",")[:5]) for line in PODS.splitlines())
    jobs = mapping.jobs(short, mapping.parse(mapping.OPENB_PODS, Job), "pods.csv")
    assert (jobs[1].card_mem, jobs[1].arrives, jobs[1].leaves) == (460, 0.0, None)


def test_another_table_is_read_by_a_mapping_with_factors() -> None:
    mapped = mapping.parse("name=id,cards=gpus,card_mem=part*1000,cpu_milli=cores*1000,leaves=end?", Job)
    (job,) = mapping.jobs("id,gpus,part,cores\nx,1,0.25,1.5\n", mapped, "jobs.csv")
    assert job == Job("x", cpu_milli=1500, cards=1, card_mem=250)


def test_a_log_of_training_jobs_is_read_with_its_dates_and_durations() -> None:
    """As public logs have it: dates as text, parts of a GPU in percent, how long a job ran beside when it came."""
    mapped = mapping.parse("name=id,gpus=plan_gpu*0.01,arrives=submitted,lives=ran?", Job)
    rows = [
        "a,25,2020-04-01 00:00:10,60",
        "b,200,2020-04-01T02:00:00+02:00,",
        "c,0,1585699200,5.5",
        "d,250,1585699200,1",
    ]
    jobs = mapping.jobs("\n".join(["id,plan_gpu,submitted,ran", *rows]), mapped, "log.csv")
    midnight = 1585699200.0
    assert jobs == (
        Job("a", cards=1, card_mem=250, arrives=midnight + 10, leaves=midnight + 70),
        Job("b", cards=2, card_mem=1000, arrives=midnight),
        Job("c", arrives=midnight, leaves=midnight + 5.5),
        Job("d", cards=3, card_mem=833, arrives=midnight, leaves=midnight + 1),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name=id,gpus=g,cards=g", "either gpus or cards"),
        ("name=id,lives=a,leaves=a", "either lives or leaves"),
    ],
)
def test_what_is_worked_out_stands_alone(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        mapping.parse(text, Job)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,-1,0,1", r"j.csv:2.cards: -1 is not usable: 0 or more"),
        ("x,1,yesterday,1", r"j.csv:2.at: 'yesterday' is not usable: seconds, or a date"),
        ("x,1,0,-1", r"j.csv:2.leaves"),
        ("x,1,0,soon", r"j.csv:2.ran: 'soon' is not usable: a number"),
        ("x,9e9,0,1", r"j.csv:2.cards: 9000000000 is not usable: 1024 or less"),
    ],
)
def test_a_job_of_a_log_that_cannot_be_meant_is_named(row: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        mapping.jobs("id,g,at,ran\n" + row, mapping.parse("name=id,gpus=g,arrives=at,lives=ran", Job), "j.csv")


@pytest.mark.parametrize("text", ["cards", "boards=cards", "cards=", "cards=a*b"])
def test_a_mapping_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        mapping.parse(text, Job)


def test_a_mapping_without_what_nobody_can_guess_says_what_is_lacking() -> None:
    with pytest.raises(Malformed, match=r"--node-columns: 'model=m' is not usable: a column for name and cards too"):
        mapping.parse("model=m", Machine)


def test_jobs_without_names_of_their_own_have_that_of_their_line() -> None:
    """Logs have a line a task, and tasks of one job its name."""
    mapped = mapping.parse("gpus=plan_gpu*0.01", Job)
    found = mapping.jobs("job_name,plan_gpu\na,50\n\na,\na,200\n", mapped, "t.csv")
    assert found == (Job("line-2", cards=1, card_mem=500), Job("line-4"), Job("line-5", cards=2, card_mem=1000))


def test_hosts_whose_cpu_nobody_names_have_no_limit_of_it() -> None:
    """Lists of machines often tell their GPUs alone."""
    mapped = mapping.parse("name=machineId,cards=number of GPUs,card_mem=single GPU mem*1024", Machine)
    (found,) = mapping.machines("machineId,number of GPUs,single GPU mem\nm1,8,24\n", mapped, "m.csv")
    assert found == Machine("m1", UNKNOWN, UNKNOWN, 8, card_mem=24576)


def test_a_column_that_may_be_missing_is_as_one_that_nobody_names() -> None:
    mapped = mapping.parse("name=name,cards=gpus,cpu_milli=cpu*1000?", Machine)
    assert mapping.machines("name,gpus\nm1,8\n", mapped, "m.csv") == (Machine("m1", UNKNOWN, UNKNOWN, 8),)
    assert mapping.jobs("gpus\n1\n", mapping.parse("name=job?,cards=gpus", Job), "t.csv") == (Job("line-2", cards=1),)
    with pytest.raises(Malformed, match=r"m\.csv:1: 'name' is not usable: a header with gpus too"):
        mapping.machines("name\nm1\n", mapping.parse("name=name,cards=gpus?", Machine), "m.csv")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sn,cpu_milli\nn1,1\n", "n.csv:1"),
        (NODES.replace("64000", "many"), "n.csv:2.cpu_milli"),
        (NODES.replace("64000", "NaN"), "n.csv:2.cpu_milli"),
        (NODES.replace("n2", "n1"), "n.csv"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_to_the_cell(text: str, path: str) -> None:
    with pytest.raises(Malformed) as fault:
        mapping.machines(text, mapping.parse(mapping.OPENB_NODES, Machine), "n.csv")
    assert fault.value.path == path


def test_jobs_that_ask_for_no_part_of_a_card_are_not_drawn_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.sim.traces.inflate.random.Random.choice", lambda *_: pytest.fail("drawn"))
    jobs = [Job("a", cards=1), Job("b", cpu_milli=1)]
    assert sorted(job.name for job in inflate(jobs, MACHINES, 1.3, seed=1)) == ["a", "b"]


def test_a_load_is_reached_and_not_passed() -> None:
    jobs = [share(f"s{number}", 470) for number in range(5)] + [whole("w")]
    order = inflate(jobs, MACHINES, 1.3, 7)
    asked = sum(job.cards * job.card_mem for job in order)
    assert 1.3 * 8000 - 1000 < asked <= 1.3 * 8000
    assert sorted(job.name for job in order[:6]) == sorted(job.name for job in jobs)
    assert len({job.name for job in order}) == len(order)


def test_a_list_that_asks_for_more_loses_some() -> None:
    order = inflate([whole(f"w{number}", 2) for number in range(20)], MACHINES, 1.3, 7)
    assert len(order) == 5  # 10,000 of 10,400


def test_the_seed_fixes_the_order() -> None:
    jobs = [share(f"s{number}", 470) for number in range(9)]
    assert inflate(jobs, MACHINES, 1.3, 1) == inflate(list(reversed(jobs)), MACHINES, 1.3, 1)
    assert inflate(jobs, MACHINES, 1.3, 1) != inflate(jobs, MACHINES, 1.3, 2)
