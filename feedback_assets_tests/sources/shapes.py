"""Files as other tools really write them, one a preset; where each shape comes from stands beside it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _pairwise(number: int, selected: str, more: list[dict[str, Any]] | None = None, **given: Any) -> dict[str, Any]:
    chosen = {"id": f"r{number}", "type": "pairwise", "value": {"selected": selected}, "origin": "manual"}
    result = [*(more or []), {**chosen, "to_name": "txt-1", "from_name": "pw"}]
    return {
        "id": 18_000 + number,
        "completed_by": 14,
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": f"2024-05-15T12:09:{number:02}.789536Z",
        "updated_at": f"2024-05-15T12:09:{number:02}.789563Z",
        "lead_time": 1.849,
        "unique_id": f"de253957-8959-4e6f-9022-30d08bbea9{number:02}",
        "last_action": None,
        "task": 6141,
        **given,
    }


# The task and its annotations: labelstud.io/guide/task_format, and tests/custom/converter/data/test_export_csv/
# csv_test_history.json of HumanSignal/label-studio-sdk; the pairwise result: labelstud.io/tags/pairwise, and how
# data-juicer reads it (`type: pairwise`, `value.selected`); prompt, answer1, answer2: data-juicer's labelling config.
def _task(number: int, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": 6140 + number,
        "annotations": annotations,
        "file_upload": "de982d35-pairs.json",
        "drafts": [],
        "predictions": [],
        "data": {"prompt": f"What is {number}?", "answer1": f"It is {number}.", "answer2": "I cannot say."},
        "meta": {},
        "created_at": "2024-05-15T12:08:36.422297Z",
        "updated_at": "2024-05-15T12:09:16.934164Z",
        "inner_id": number,
        "total_annotations": len(annotations),
        "project": 24,
        "comment_authors": [],
    }


_COMMENT = {"id": "c1", "type": "textarea", "value": {"text": ["clearer"]}, "from_name": "why", "to_name": "txt-1"}
LABEL_STUDIO = [
    _task(1, [_pairwise(1, "left"), _pairwise(2, "right", [_COMMENT], completed_by=15)]),
    _task(2, [_pairwise(3, "left"), _pairwise(4, "left", result=[], was_cancelled=True, completed_by=15)]),
    _task(3, []),
]
LABEL_STUDIO_PEOPLE = [
    _task(1, [_pairwise(1, "right", completed_by={"id": 14, "email": "a@x.test", "first_name": "", "last_name": ""})])
]

# convert_to_json_min and prettify_result of label_studio_sdk.converter 2.1.2
LABEL_STUDIO_MIN = [
    {
        "prompt": f"What is {number}?",
        "answer1": f"It is {number}.",
        "answer2": "I cannot say.",
        "id": 6140 + number,
        "pw": [{"selected": selected}],
        "annotator": 14,
        "annotation_id": 18_000 + number,
        "created_at": f"2024-05-15T12:09:{number:02}.789536Z",
        "updated_at": f"2024-05-15T12:09:{number:02}.789563Z",
        "lead_time": 3.2,
    }
    for number, selected in ((1, "left"), (2, "right"))
]


# argilla 2.8.0: Record.to_dict (to_json, to_list) and GenericIO._record_to_dict with flatten (to_datasets)
def _argilla(number: int, question: str, answers: list[tuple[Any, str]], fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"rec-{number}",
        "fields": fields,
        "metadata": {"source": "web"},
        "suggestions": {question: {"value": answers[0][0] if answers else None, "score": 0.9, "agent": "gpt-4"}},
        "responses": {question: [{"value": value, "user_id": user} for value, user in answers]} if answers else {},
        "vectors": {},
        "status": "completed" if answers else "pending",
        "_server_id": f"5a0c5f5e-0000-4000-8000-00000000000{number}",
    }


_PAIR = {"prompt": "Why?", "response_1": "Because.", "response_2": "No reason."}
ARGILLA = [
    _argilla(1, "preference", [("response_1", "u-1"), ("response_2", "u-2")], _PAIR),
    _argilla(2, "preference", [("tie", "u-1")], {**_PAIR, "prompt": "How?"}),
    _argilla(3, "preference", [], {**_PAIR, "prompt": "When?"}),
]
ARGILLA_RANKING = [_argilla(1, "preference", [(["response_2", "response_1"], "u-1")], _PAIR)]
ARGILLA_RATING = [
    _argilla(1, "rating", [(4, "u-1"), (2, "u-2")], {"instruction": "Sing.", "response": "La."}),
    _argilla(2, "rating", [(5, "u-1")], {"instruction": "Dance.", "response": "One, two."}),
]
ARGILLA_FLAT = [
    {
        "id": f"rec-{number}",
        "status": "completed",
        "_server_id": f"5a0c5f5e-0000-4000-8000-00000000000{number}",
        **_PAIR,
        "prompt": f"Why {number}?",
        "preference.responses": values,
        "preference.responses.users": users,
        "preference.responses.status": statuses,
        "preference.suggestion": "response_1",
        "preference.suggestion.score": 0.5,
        "preference.suggestion.agent": "gpt-4",
    }
    for number, values, users, statuses in (
        (1, ["response_1", "response_2"], ["u-1", "u-2"], ["submitted", "discarded"]),
        (2, ["response_2", "response_1"], ["u-2", "u-3"], ["submitted", "draft"]),
    )
]

# huggingface.co/docs/trl/dataset_formats
TRL = [{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}]
TRL_CONVERSATIONAL = [
    {
        "prompt": [_user("What color is the sky?")],
        "chosen": [_assistant("It is blue.")],
        "rejected": [_assistant("It is green.")],
    }
]
TRL_IMPLICIT = [
    {
        "chosen": [*TRL_CONVERSATIONAL[0]["prompt"], _assistant("It is blue.")],
        "rejected": [*TRL_CONVERSATIONAL[0]["prompt"], _assistant("It is green.")],
    }
]
KTO = [
    {"prompt": "The sky is", "completion": " blue.", "label": True},
    {"prompt": "The sky is", "completion": " green.", "label": False},
]
KTO_CONVERSATIONAL = [{"prompt": [_user("Sky?")], "completion": [_assistant("Blue.")], "label": True}]

# The card of HuggingFaceH4/ultrafeedback_binarized: its features
ULTRAFEEDBACK = [
    {
        "prompt": "Hi",
        "prompt_id": "f0e37e9f7800261167ce91143f98f511f768847236f133f2d0aed60b444ebe57",
        "chosen": [_user("Hi"), _assistant("Hello!")],
        "rejected": [_user("Hi"), _assistant("What?")],
        "messages": [_user("Hi"), _assistant("Hello!")],
        "score_chosen": 8.5,
        "score_rejected": 4.0,
    }
]

# anthropics/hh-rlhf, as the file in shared/data
HH = [
    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"},
    {"chosen": "\n\nHuman: One\n\nAssistant: 1", "rejected": "\n\nHuman: Two\n\nAssistant: 2"},
    {"chosen": "\n\nHuman: Bye\n\nAssistant: Bye!", "rejected": "\n\nHuman: Bye\n\nAssistant: No."},
]

# The card of lmsys/mt_bench_human_judgments: its features
MT_BENCH = [
    {
        "question_id": 81,
        "model_a": "alpaca-13b",
        "model_b": "gpt-3.5-turbo",
        "winner": "model_b",
        "judge": "author_2",
        "conversation_a": [_user("q1"), _assistant("a1"), _user("q2"), _assistant("a2")],
        "conversation_b": [_user("q1"), _assistant("b1"), _user("q2"), _assistant("b2")],
        "turn": turn,
    }
    for turn in (1, 2)
]

# summarize_from_feedback.py of openai/summarize_from_feedback: the features of `comparisons`
OPENAI = [
    {
        "info": {"id": "t3_1", "post": "A long post.", "title": "T", "subreddit": "r", "site": None, "article": None},
        "summaries": [
            {"text": "Short.", "policy": "sup1", "note": None},
            {"text": "Shorter.", "policy": "ref", "note": None},
        ],
        "choice": 1,
        "worker": "W1",
        "batch": "b7",
        "split": "train",
        "extra": {"confidence": 7},
    }
]


def as_json(folder: Path, rows: list[dict[str, Any]], indent: int | None = None) -> Path:
    path = folder / "export.json"
    path.write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    return path


def as_jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "train-00000-of-00001.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


Write = Callable[[Path, list[dict[str, Any]]], Path]
ULTRAFEEDBACK_RATED = [
    {
        "source": "evol_instruct",
        "instruction": f"Explain {subject}.",
        "completions": [
            {
                "model": model,
                "response": f"{subject} as {model} sees it.",
                "annotations": {
                    "helpfulness": {"Rating": f"{score:.0f}", "Rationale": "Clear."},
                    "honesty": {"Rating": "N/A" if score < 3 else "4", "Rationale": "Sure of itself."},
                },
                "fine-grained_score": score,
                "overall_score": 10.0 if score == 1 else score,
            }
            for model, score in zip(("alpaca-7b", "gpt-4", "llama-2-7b-chat", "starchat"), scores, strict=True)
        ],
    }
    for subject, scores in (("tides", (1.0, 4.75, 4.25, 4.25)), ("rust", (3.0, 5.0, 2.0, 1.0)))
]

SHAPES: dict[str, tuple[str, list[dict[str, Any]], Write, int]] = {
    # name: preset, rows, how they are written, records that are kept
    "label studio": ("label-studio-pairwise", LABEL_STUDIO, as_json, 3),
    "label studio, annotators as objects": ("label-studio-pairwise", LABEL_STUDIO_PEOPLE, as_json, 1),
    "label studio, JSON-MIN": ("label-studio-pairwise", LABEL_STUDIO_MIN, as_json, 2),
    "argilla": ("argilla-preference", ARGILLA, as_json, 3),
    "argilla, a ranking": ("argilla-preference", ARGILLA_RANKING, as_json, 1),
    "argilla, flat": ("argilla-preference", ARGILLA_FLAT, as_parquet, 2),
    "argilla, ratings": ("argilla-rating", ARGILLA_RATING, as_json, 3),
    "trl": ("trl-preference", TRL, as_jsonl, 1),
    "trl, conversational": ("trl-preference", TRL_CONVERSATIONAL, as_parquet, 1),
    "trl, implicit prompt": ("trl-preference", TRL_IMPLICIT, as_parquet, 1),
    "kto": ("kto", KTO, as_jsonl, 2),
    "kto, conversational": ("kto", KTO_CONVERSATIONAL, as_parquet, 1),
    "ultrafeedback": ("ultrafeedback-binarized", ULTRAFEEDBACK, as_parquet, 1),
    "ultrafeedback, rated": ("ultrafeedback", ULTRAFEEDBACK_RATED, as_jsonl, 8),
    "hh": ("anthropic-hh", HH, as_jsonl, 2),
    "mt-bench": ("mt-bench", MT_BENCH, as_parquet, 2),
    "openai": ("openai-comparisons", OPENAI, as_jsonl, 1),
}
