"""The key ``only``: a part of a configuration's work. What is left out stays as it is; what is kept keeps its files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from workflow_scripts.config.base import Name, Strict


def _listed(value: Any) -> Any:
    """One name stands for a list of one; on the command line `a,b` for two."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int) else value


Names = Annotated[list[Name], BeforeValidator(_listed, json_schema_input_type=str | list[Name])]
Seed = Annotated[int, Field(ge=0)]
Seeds = Annotated[list[Seed], BeforeValidator(_listed, json_schema_input_type=str | Seed | list[Seed])]


class Only(Strict):
    """A part of the work: the tables, figures and page of these papers, ID sets, networks, recipes and seeds, and what
    they need. Files, parameters and code of what is kept are those of the whole run, so nothing that exists is made
    again for another part but tables, figures and page. A name, or a list of names, alone is that of papers:
    `--config only=goe`, `--config 'only={papers: [goe], seeds: [0]}'`."""

    papers: Names = []
    """Papers, by the names of the experiments; empty: all."""
    ids: Names = []
    """ID sets; empty: all."""
    networks: Names = []
    """Networks; empty: all."""
    recipes: Names = []
    """Recipes whose networks are reported; those they start from are trained too; empty: all."""
    seeds: Seeds = []
    """Seeds; empty: all. `seeds: 5` with `only: {seeds: [3, 4]}` trains two more beside those that exist."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """With what :meth:`_papers` takes for a mapping."""
        return {"anyOf": [handler(core), {"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

    @model_validator(mode="before")
    @classmethod
    def _papers(cls, value: Any) -> Any:
        return {"papers": value} if isinstance(value, str | list) else value

    def within_a_paper(self) -> dict[str, list]:
        """What it leaves out of a paper's own table; empty where that table is whole."""
        return {key: value for key, value in self.model_dump(exclude={"papers"}).items() if value}
