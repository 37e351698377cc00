"""A copy of a modeling file of transformers in which nothing has its name: no class, function, attribute, config field.

It is made from the installed source when the tests run; the names that transformers' own base classes and attention
functions ask for stay.
"""

import ast
import importlib
import inspect
import random
import sys
from pathlib import Path
from types import ModuleType

# Read from a module or a config by transformers' shared code.
KEPT_ATTRIBUTES = {
    "config", "training", "gradient_checkpointing", "is_causal", "num_key_value_groups", "layer_idx", "weight", "bias",
    "post_init", "scaling", "rope_type", "padding_idx", "self",
}  # fmt: skip
KEPT_FIELDS = {
    "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "rope_parameters",
    "initializer_range", "is_decoder", "chunk_size_feed_forward", "add_cross_attention", "type_vocab_size",
}  # fmt: skip
# Read from a config by transformers' shared code, through its attribute map.
SHARED_FIELDS = (
    "num_hidden_layers", "num_attention_heads", "hidden_size", "max_position_embeddings", "vocab_size", "head_dim",
)  # fmt: skip
DROPPED_DECORATORS = {"auto_docstring", "use_kernel_forward_from_hub", "use_kernelized_func"}
DROPPED_ASSIGNMENTS = ("base_model_tp_plan", "base_model_pp_plan", "base_model_fsdp_plan", "model_type", "__all__")


class Names:
    """New names for old ones, each a word without meaning."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.classes: dict[str, str] = {}
        self.functions: dict[str, str] = {}
        self.attributes: dict[str, str] = {}
        self.fields: dict[str, str] = {}

    def word(self, capital: bool = False) -> str:
        letters = "".join(self.random.choice("bdgklmnprtvz") + self.random.choice("aeiou") for _ in range(4))
        return letters.capitalize() if capital else letters


def renamed_module(configuration: ModuleType, modeling: ModuleType, entry: str, folder: Path, seed: int = 0) -> Names:
    """Writes `renamed_configuration.py` and `renamed_modeling.py` to a folder; `entry` and what it needs.

    Returns:
        The names; `classes[entry]` is the class in `renamed_modeling`.
    """
    trees = [ast.parse(inspect.getsource(module)) for module in (configuration, modeling)]
    trees[1] = _needed(trees[1], entry)
    names = Names(seed)
    for tree in trees:
        _collect(tree, names)
    for tree, module, file in zip(trees, (configuration, modeling), ("configuration", "modeling"), strict=True):
        text = ast.unparse(ast.fix_missing_locations(_Renamed(names, module).visit(tree)))
        (folder / f"renamed_{file}.py").write_text(text, encoding="utf-8")
    return names


def load(folder: Path, names: Names, config_class: str, entry: str) -> tuple[type, type]:
    """The config and the model class."""
    for file in ("renamed_configuration", "renamed_modeling"):
        sys.modules.pop(file, None)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    configuration, modeling = map(importlib.import_module, ("renamed_configuration", "renamed_modeling"))
    return getattr(configuration, names.classes[config_class]), getattr(modeling, names.classes[entry])


def _needed(tree: ast.Module, entry: str) -> ast.Module:
    """The file without the top-level definitions that the entry does not need."""
    defined = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    wanted, todo = set(), [entry]
    while todo:
        name = todo.pop()
        if name in defined and name not in wanted:
            wanted.add(name)
            todo += [n.id for n in ast.walk(defined[name]) if isinstance(n, ast.Name)]
    tree.body = [node for node in tree.body if getattr(node, "name", None) in wanted or node not in defined.values()]
    return tree


def _collect(tree: ast.Module, names: Names) -> None:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            names.functions[node.name] = names.word()
        elif isinstance(node, ast.ClassDef):
            names.classes[node.name] = names.word(capital=True)
            if node.name.endswith("Config"):
                fields = [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]
                names.fields |= {field: names.word() for field in fields if field not in KEPT_FIELDS}
                continue
            names.attributes |= {name: names.word() for name in _assigned(node) if name not in names.attributes}


def _assigned(node: ast.ClassDef) -> list[str]:
    """The attributes that a class sets and nobody else asks for."""
    stores = (item for item in ast.walk(node) if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store))
    return [name for name in dict.fromkeys(item.attr for item in stores) if name not in KEPT_ATTRIBUTES]


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: Names, module: ModuleType):
        self.names, self.package = names, module.__name__.rpartition(".")[0]
        self.in_config = False

    def visit_ImportFrom(self, node):
        if node.level == 1:
            node.module = "renamed_configuration"
            node.names = [ast.alias(self.names.classes.get(a.name, a.name), a.asname) for a in node.names]
        elif node.level:
            node.module = ".".join([*self.package.split(".")[: 1 - node.level], *filter(None, [node.module])])
        node.level = 0
        return node

    def visit_ClassDef(self, node):
        self.in_config = node.name.endswith("Config")
        node.body = [item for item in node.body if not _is_dropped(item)]
        node.decorator_list = [d for d in node.decorator_list if _called(d) not in DROPPED_DECORATORS]
        added = self._added(node)
        node = self.generic_visit(node)
        node.body = [*(ast.parse(line).body[0] for line in added), *node.body]
        node.name = self.names.classes[node.name]
        return node

    def _added(self, node: ast.ClassDef) -> list[str]:
        """How transformers' shared code finds what it asks for."""
        names = self.names
        if self.in_config:
            shared = {name: names.fields[name] for name in SHARED_FIELDS if name in names.fields}
            return ["model_type = 'renamed'", f"attribute_map = {shared!r}"]
        if node.name.endswith("PreTrainedModel") and "embed_tokens" in names.attributes:
            return [f"_input_embed_layer = {names.attributes['embed_tokens']!r}"]
        return []

    def visit_FunctionDef(self, node):
        node.decorator_list = [d for d in node.decorator_list if _called(d) not in DROPPED_DECORATORS]
        node.body = node.body[1:] if ast.get_docstring(node) else node.body
        if node.col_offset == 0:
            node.name = self.names.functions.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node):
        if self.in_config and isinstance(node.target, ast.Name):
            node.target.id = self.names.fields.get(node.target.id, node.target.id)
        return self.generic_visit(node)

    def visit_Assign(self, node):
        return None if _is_dropped(node) else self.generic_visit(node)

    def visit_Name(self, node):
        node.id = self.names.classes.get(node.id, self.names.functions.get(node.id, node.id))
        return node

    def visit_Attribute(self, node):
        node = self.generic_visit(node)
        owner = ast.unparse(node.value)
        if owner in ("config", "self.config") or (owner == "self" and self.in_config):
            node.attr = self.names.fields.get(node.attr, node.attr)
        elif owner == "module" or owner.startswith("self"):
            node.attr = self.names.attributes.get(node.attr, node.attr)
        return node

    def visit_Constant(self, node):
        if isinstance(node.value, str):
            node.value = self.names.classes.get(node.value, self.names.fields.get(node.value, node.value))
        return node


def _is_dropped(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id in DROPPED_ASSIGNMENTS for target in targets)


def _called(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
