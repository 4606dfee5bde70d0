"""`python -m steerlab.data.clients hub|kaggle <origin> <remote> <folder>`: one question to a hub's own client.

A process of its own, because both clients read endpoint and key from the environment when they are imported. The answer
is one JSON line on stdout: {"path"} (the hub's client has downloaded), {"url"} (Kaggle's signed address, to be
downloaded) or {"fault": credentials|terms|missing|transient|disk, "detail"}.
"""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any, cast


def main(client: str, origin: str, remote: str, folder: str) -> None:
    """Ask a client for one file and print one line of JSON: its answer (see `hub`, `kaggle`), or {"fault", "detail"}.

    client: hub or kaggle; origin: as the table of sources has it; remote: the file's path there; folder: where it goes.
    """
    try:
        answer = {"hub": hub, "kaggle": kaggle}[client](origin, remote, Path(folder))
    except Exception as error:  # the clients raise a dozen kinds: what counts is the status they carry
        answer = {
            "fault": _fault(error),
            "detail": str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
        }
    sys.stdout.write(json.dumps(answer) + "\n")


def hub(origin: str, remote: str, folder: Path) -> dict[str, str]:
    """origin: datasets|models/<owner>/<name>@<commit>. The client keeps its partial file in `folder` and resumes it."""
    from huggingface_hub import hf_hub_download

    kind, _, repository = origin.partition("/")
    repository, _, revision = repository.partition("@")
    into = folder / "hub"
    return {"path": hf_hub_download(repository, remote, repo_type=kind[:-1], revision=revision, local_dir=into)}


def kaggle(origin: str, remote: str, _folder: Path) -> dict[str, str]:
    """origin: competitions/<slug> or datasets/<owner>/<slug>[/versions/<n>]. The address is good for minutes."""
    from kagglesdk import KaggleClient
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFileRequest
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    kind, *slugs = origin.split("/")
    with KaggleClient(
        username=os.environ.get("KAGGLE_USERNAME", ""), password=os.environ.get("KAGGLE_KEY", "")
    ) as client:
        if kind == "competitions":
            question = ApiDownloadDataFileRequest()
            question.competition_name, question.file_name = slugs[0], remote
            answer = client.competitions.competition_api_client.download_data_file(question)
        else:
            question = ApiDownloadDatasetRequest()
            question.owner_slug, question.dataset_slug, question.file_name = slugs[0], slugs[1], remote
            question.dataset_version_number = int(slugs[3]) if len(slugs) > 3 else None
            answer = client.datasets.dataset_api_client.download_dataset(question)
        response = cast(Any, answer)  # declared as a redirect, in truth the response it led to
        response.close()
    return {"url": response.url}


def _fault(error: Exception) -> str:
    """The kind of fault, from the nearest HTTP status in the chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return "disk"
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if type(cause).__name__ == "GatedRepoError" or status == 403:
            return "terms"
        if status is not None:
            return {401: "credentials", 404: "missing"}.get(
                status, "transient" if status >= 500 or status == 429 else "missing"
            )
        cause = cause.__cause__ or cause.__context__
    return "transient"


if __name__ == "__main__":
    main(*sys.argv[1:])
