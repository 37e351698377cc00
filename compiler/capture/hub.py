"""Model repositories of the Hugging Face Hub, as local directories."""

from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from hf2khc.diagnostics import ConversionError, fail

WEIGHT_PATTERNS = ("*.safetensors",)
# Beside JSON files: vocabularies, and templates of chats.
TEXT_PATTERNS = ("vocab.txt", "merges.txt", "*.model", "*.tiktoken", "*.jinja")


def fetch(model: str, *, weights: bool = True, code: bool = False) -> Path:
    """The local snapshot of a Hub repository: JSON files, vocabularies, safetensors, and Python files with `code`.

    Raises:
        ConversionError: `model-not-found` or `no-network`.
    """
    patterns = ["*.json", *TEXT_PATTERNS, *(WEIGHT_PATTERNS if weights else ()), *(("*.py",) if code else ())]
    try:
        # Sub-folders hold other formats of the same model.
        path = huggingface_hub.snapshot_download(model, allow_patterns=patterns, ignore_patterns=["*/*"])
    except errors.GatedRepoError as error:
        raise fail(
            "model-not-accessible",
            f"the Hub repository {model} asks for permission",
            hint="ask for access on its page, then run `hf auth login`",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise not_found(model) from error
    except (OSError, errors.HfHubHTTPError) as error:
        # Offline mode, a failed connection and a missing cache entry all end here.
        raise fail(
            "no-network",
            f"{model} is not in the local cache and the Hub cannot be reached",
            location=model,
            hint="connect to the network once, or give a local directory with config.json and safetensors",
        ) from error
    return Path(path)


def weight_files(model: str) -> tuple[str, ...]:
    """Names of the files of a Hub repository; empty when the Hub cannot be asked."""
    try:
        return tuple(huggingface_hub.list_repo_files(model))
    except (OSError, errors.HfHubHTTPError):
        return ()


def not_found(model: str) -> ConversionError:
    """The diagnostic for a MODEL that is neither a directory, nor a repository, nor a model type."""
    return fail(
        "model-not-found",
        f"{model!r} is no local directory and no repository of the Hub",
        hint="give a directory with config.json, a Hub id such as openai-community/gpt2,\n"
        "or a model type such as llama together with --random-init",
    )
