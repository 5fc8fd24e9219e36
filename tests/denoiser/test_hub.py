"Models given to the hub and taken from it, with nobody at the other end"

from pathlib import Path

import huggingface_hub
import huggingface_hub.hub_mixin
import pytest
import torch
from huggingface_hub import errors

from denoise_study import load_pretrained
from denoise_study.denoiser import FILE_ON_HUB, file_on_hub, model_from, on_hub
from denoise_study.denoiser import hub
from helpers import hide_library


class Hub:
    "Keeps the files of repositories in folders"

    def __init__(self, root):
        self.root = root

    def __call__(self, token=None):
        return self

    def create_repo(self, repo_id, **kwargs):
        self.repo_id = repo_id
        return self

    def upload_folder(self, repo_id, folder_path, **kwargs):
        (self.root / repo_id).parent.mkdir(exist_ok=True)
        Path(folder_path).rename(self.root / repo_id)
        return repo_id

    def download(self, repo_id, filename, **kwargs):
        path = self.root / repo_id / filename
        if not path.exists():
            raise errors.LocalEntryNotFoundError(f"{repo_id} has no {filename}")
        return str(path)


@pytest.fixture
def there(tmp_path, monkeypatch):
    there = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", there)
    for module in (huggingface_hub, huggingface_hub.hub_mixin):
        monkeypatch.setattr(module, "hf_hub_download", there.download)
    return there


@pytest.mark.parametrize("name", ["ddgm-digits", "daed-digits", "blind-digits"])
def test_what_is_given_can_be_taken_by_its_name(name, there):
    model = load_pretrained(name)
    on_hub(model).push_to_hub(f"you/{name}")
    found = model_from(f"you/{name}")
    assert type(found) is type(model)
    for key, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)
    kept = {k: v for k, v in model.info.items() if k not in ("weights", "file", "digest")}
    assert {k: found.info[k] for k in kept} == kept
    assert f'model_from("you/{name}")' in (there.root / f"you/{name}/README.md").read_text()


def test_a_repository_without_our_file_is_not_ours(there, tmp_path):
    assert file_on_hub("google/ddpm-cifar10-32") is None
    assert file_on_hub(there.root) is None
    with pytest.raises(FileNotFoundError, match=FILE_ON_HUB):
        type(on_hub(None)).from_pretrained(tmp_path)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    hub._hub_model.cache_clear()
    hide_library(monkeypatch, "huggingface_hub")
    with pytest.raises(ImportError, match=r"denoise_study\[hub\]"):
        on_hub(None)
    assert file_on_hub("you/model") is None
