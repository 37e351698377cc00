"""The test of a task that comes with a package."""

from hf2khc.write.examples import argument, tiny_config
from hf2khc.write.plan import Plan
from hf2khc.write.split import backbone_plan, task_fields
from hf2khc.write.task_class import task_class, task_module
from hf2khc.write.test_class import head, prediction, saving, setup, shape_checks


def write_task_test(plan: Plan) -> str:
    """The unformatted text of `<package>_<task>_test.py`."""
    name = task_class(plan)
    return "\n".join([_head(plan, name), _setup(plan), _basics(plan, name), saving(name, preprocessor="None")])


def _head(plan: Plan, name: str) -> str:
    backbone = f"from {plan.package}.{plan.package}_backbone import {plan.prefix}Backbone"
    return head(name, f"{backbone}\nfrom {plan.package}.{task_module(plan)} import {name}")


def _setup(plan: Plan) -> str:
    base, own = backbone_plan(plan), {field.name for field in task_fields(plan)}
    given = {"base": tiny_config(base), "own": {k: v for k, v in tiny_config(plan).items() if k in own}}
    text = {
        key: " ".join(f'"{name}": {argument(value)},' for name, value in config.items())
        for key, config in given.items()
    }
    backbone = f"{plan.prefix}Backbone(**{{ {text['base']} }})"
    return setup(plan, f'"backbone": {backbone}, "preprocessor": None, {text["own"]}')


def _basics(plan: Plan, name: str) -> str:
    return f"""
    def test_task_basics(self):
        model = {name}(**self.init_kwargs)
        outputs = model(self.input_data)
{shape_checks(plan, {"batch": 2, "seq": 5}, " " * 8)}\
        self.assert_all_close(outputs, {prediction(plan)})
"""
