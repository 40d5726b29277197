"""What an annotator is told in the editor where no worker lives; and what can be said without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.browser.annotating import Annotator
from tests.browser.backend import Clip, connected_project, running_backend


def test_without_a_worker_the_editor_says_so_at_once(
    editor: Annotator, label_studio: Any, clip: Clip, tmp_path: Path
) -> None:
    with running_backend(label_studio, tmp_path, tmp_path, commands=("serve",)) as url:
        lonely = connected_project(label_studio, url, "polygon")
        editor.open_task(lonely.project, lonely.add_task(clip, clip.prompts[0]))
        editor.auto_annotate()
        asked = editor.type_prompt(clip.prompts[1])
        assert "No worker is running" in " ".join(editor.notes())
        assert asked.answered_s < 10
        editor.screenshot("notices_3_no_worker")
