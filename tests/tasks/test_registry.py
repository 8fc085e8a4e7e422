import pytest

from vlmcourse.tasks import get_task, list_tasks, register_task, registry


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    list_tasks()  # all modules are in
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


def test_names():
    assert list_tasks() == sorted(list_tasks()) and {"fashion_mnist", "digits"} <= set(list_tasks())


def test_a_task_is_built_once(task):
    calls = []

    @register_task("toy")
    def toy():
        calls.append(1)
        return task

    assert "toy" in list_tasks() and not calls
    assert get_task("toy") is get_task("toy") is task and calls == [1]
    register_task("toy")(toy)  # as when its module is loaded again
    assert get_task("toy") is task and calls == [1, 1]


def test_unknown_name_gets_a_hint():
    with pytest.raises(ValueError, match=r"no task 'fashion-mnist'; did you mean 'fashion_mnist'\? tasks: .*digits"):
        get_task("fashion-mnist")
    with pytest.raises(ValueError, match="no task 'zzz'; tasks: "):
        get_task("zzz")


def test_a_name_is_taken_once(task):
    with pytest.raises(ValueError, match=r"'digits' is already registered by vlmcourse\.tasks\.far\.digits"):
        register_task("digits")(lambda: task)


@pytest.mark.parametrize("name", ["", "a/b", None])
def test_wrong_name(name):
    with pytest.raises(ValueError, match="name must be"):
        register_task(name)


def test_task_must_have_the_name_it_is_registered_under(task):
    register_task("other")(lambda: task)
    with pytest.raises(ValueError, match="'other' calls itself 'toy'"):
        get_task("other")
