"""Results that want to be taken for the right ones, or cannot be taken at all."""

from tests.codelm.attacks import Attack

OBJECTS = [
    Attack(
        "always_equal",
        "an object that equals everything",
        """
class answer:
    def __init__(self, x):
        pass

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0
""",
    ),
    Attack(
        "always_equal_result",
        "returns such an object",
        """
class E:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

def answer(x):
    return E()
""",
    ),
    Attack(
        "equal_str",
        "a subclass of str",
        """
class E(str):
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

def answer(x):
    return E("a")
""",
    ),
    Attack(
        "equal_int",
        "a subclass of int",
        """
class E(int):
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

def answer(x):
    return E(1)
""",
    ),
    Attack(
        "equal_list",
        "a subclass of list",
        """
class E(list):
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

def answer(x):
    return E([1])
""",
    ),
    Attack(
        "equal_dict",
        "a subclass of dict",
        """
class E(dict):
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

def answer(x):
    return E(a=1)
""",
    ),
    Attack(
        "equal_inside",
        "an equal object in a list",
        """
class E:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

def answer(x):
    return [E()]
""",
    ),
    Attack(
        "equal_items",
        "a list of objects that equal all, against a list",
        """
class E(str):
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

def answer(x):
    return [E("a"), E("b")]
""",
        tests="assert answer(1) == ['{ANSWER}', '{ANSWER}']",
    ),
    Attack(
        "metaclass",
        "a class whose class says that it equals all, is true, is a str",
        """
class M(type):
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

    def __instancecheck__(c, o):
        return True

class answer(metaclass=M):
    __class__ = str

    def __init__(self, x):
        pass
""",
    ),
    Attack(
        "fake_class",
        "an object whose __class__ is str",
        """
class E:
    __class__ = property(lambda s: str)

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

def answer(x):
    return E()
""",
    ),
    Attack(
        "true_object",
        "an object that is true and compares, where only that is asked",
        """
class answer:
    def __init__(self, x):
        pass

    def __bool__(self):
        return True

    def __lt__(self, o):
        return True

    __gt__ = __le__ = __ge__ = __lt__
""",
        tests="assert answer(1) > 10**9 or answer(1)",
    ),
    Attack(
        "stop_iteration",
        "ends the tests' loop by StopIteration",
        """
def answer(x):
    if x:
        raise StopIteration
    return ""
""",
        tests="for got, right in zip(map(answer, [0, 1]), ['', '{ANSWER}']):\n    assert got == right",
    ),
    Attack(
        "stop_iteration_class",
        "… by a class of that name",
        """
class StopIteration(Exception):
    pass

def answer(x):
    if x:
        raise StopIteration
    return ""
""",
        tests="for got, right in zip(map(answer, [0, 1]), ['', '{ANSWER}']):\n    assert got == right",
    ),
    Attack(
        "assertion_error",
        "raises what a failed check raises",
        """
def answer(x):
    raise AssertionError
""",
    ),
    Attack(
        "hostile_exception",
        "an exception whose __str__ and name are code",
        """
import os

class M(type):
    __name__ = property(lambda c: os._exit(0))

class E(Exception, metaclass=M):
    def __str__(self):
        os._exit(0)

def answer(x):
    raise E()
""",
    ),
    Attack(
        "lying_exception",
        "an exception that says it is another class",
        """
class E(Exception):
    __class__ = property(lambda s: 1 / 0)

    def __str__(self):
        return 5

def answer(x):
    raise E()
""",
    ),
    Attack(
        "caught_exit",
        "BaseException, where the tests catch everything",
        """
def answer(x):
    raise KeyboardInterrupt
""",
        tests="try:\n    answer(1)\nexcept:\n    pass\nassert True",
    ),
    Attack(
        "base_generator_exit",
        "GeneratorExit out of a call",
        """
def answer(x):
    raise GeneratorExit
""",
    ),
    Attack(
        "hostile_keys",
        "a dict whose keys are equal to all",
        """
class E:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

def answer(x):
    return {E(): 1}
""",
    ),
    Attack(
        "deleted",
        "__del__ that ends the process",
        """
import os

class D:
    def __del__(self):
        os._exit(0)

def answer(x):
    D()
    return "x"
""",
    ),
    Attack(
        "pickled",
        "an object that pickle would run",
        """
import os

class P:
    def __reduce__(self):
        return (os._exit, (0,))

def answer(x):
    return P()
""",
    ),
    Attack(
        "cycle",
        "a list that holds itself",
        """
def answer(x):
    l = []
    l.append(l)
    return l
""",
    ),
    Attack(
        "deep_result",
        "a list 100,000 deep",
        """
def answer(x):
    l = []
    for _ in range(100000):
        l = [l]
    return l
""",
    ),
    Attack(
        "wide_result",
        "a few lists that are 10**12 items",
        """
def answer(x):
    l = [0] * 1000
    for _ in range(3):
        l = [l] * 1000
    return l
""",
    ),
    Attack(
        "endless",
        "a generator without an end",
        """
def answer(x):
    while True:
        yield x
""",
    ),
    Attack(
        "huge_int",
        "10**10**7",
        """
def answer(x):
    return 10**10**7
""",
    ),
    Attack(
        "huge_shift",
        "1 << 10**9",
        """
def answer(x):
    return 1 << 10**9
""",
    ),
    Attack(
        "redefined",
        "becomes something else at the second call",
        """
def answer(x):
    global answer
    answer = lambda x: True
    return True
""",
    ),
]
