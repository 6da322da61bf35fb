"""HumanEval-Infilling: of a solved function a line, lines or any span is missing, and what is put there has to work."""

from experiments.evals import benchmarks
from experiments.evals.catalogue import Data
from experiments.evals.humaneval import HUMANEVAL, LIMITS, check_of, checks
from experiments.evals.suite import AS_IS, Metric, Outcome, PostProcessing, Prompt, Suite, Task, Tools
from train.infilling import similarity

_METRICS: dict[str, Metric] = {"pass": "passes", "exact": "mean", "similarity": "mean"}


def _one_line(task: Task, text: str) -> str:
    return _whole_lines(task, text.split("\n", 1)[0])


def _whole_lines(task: Task, text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


ONE_LINE = PostProcessing(
    "one-line", 1, "cut after the first line; the newline that ends a line stays or is added", _one_line
)
WHOLE_LINES = PostProcessing("whole-lines", 1, "a newline where there is none at the end", _whole_lines)


def infill_single(data: Data) -> Suite:
    return _suite("infill-single", "single line", "SingleLineInfilling", ONE_LINE, data, 128, ("\n",))


def infill_multi(data: Data) -> Suite:
    return _suite("infill-multi", "several lines", "MultiLineInfilling", WHOLE_LINES, data)


def infill_random(data: Data) -> Suite:
    return _suite("infill-random", "random span", "RandomSpanInfilling", AS_IS, data)


def infill_light(data: Data) -> Suite:
    return _suite("infill-light", "random span", "RandomSpanInfillingLight", AS_IS, data)


def _suite(
    name: str, span: str, published: str, how: PostProcessing, data: Data, most: int = 512, stop: tuple[str, ...] = ()
) -> Suite:
    file = f"HumanEval-{published}.jsonl.gz"
    url = f"https://github.com/openai/human-eval-infilling/raw/master/data/{file}"
    fields = (*HUMANEVAL.fields, "suffix")
    read = benchmarks.read(benchmarks.File(f"humaneval-infilling/{file}", url, fields), data.benchmarks, data.cache)
    tasks = [
        Task(
            row["task_id"],
            Prompt(row["prompt"], row["suffix"]),
            row["canonical_solution"],
            {"language": "Python", "span": span, "lines": _length(row["canonical_solution"])},
            checks(row, row["prompt"] + row["canonical_solution"] + row["suffix"]),
        )
        for row in read.rows
    ]

    def attempt(task: Task, tools: Tools) -> Outcome:
        middle = how.apply(task, tools.ask(task.prompt))
        program = f"{task.prompt.prefix}{middle}{task.prompt.suffix}"
        verdict = tools.pool.check(check_of(program, task, LIMITS))
        scores = {
            "pass": float(verdict.passed),
            "exact": float(middle == task.reference),
            "similarity": similarity(middle, task.reference),
        }
        return Outcome(middle, scores, verdict.reason)

    about = f"holes in the solutions of HumanEval: {span}"
    return Suite(name, 1, about, tasks, attempt, _METRICS, read.sha256, how, most, stop, executes=True)


def _length(middle: str) -> str:
    lines = len(middle.strip("\n").split("\n"))
    return "1" if lines == 1 else "2 to 4" if lines < 5 else "5 to 9" if lines < 10 else "10 or more"
