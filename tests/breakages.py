"""The small breakages of the core that `mutation.py` tries: made by operators from its syntax trees, or by hand."""

import ast
import copy
import re
import sys
from collections import Counter
from dataclasses import dataclass

# By hand, in whole lines: what stands in the room just once (-), and what takes its place (+).
NAMED = """
_retry: the retried response has the old request
-    retried.request = request
+    retried.request = response.request

_retry: the history of the retried response is replaced instead of extended
-    retried.history.append(response)
+    retried.history = [response]

_token: the repr of a token shows it
-        return f"<Token, {self.lifetime:.0f} s to live from {self.obtained_at:.0f}>"
+        return f"<Token {self.value}>"

_source: those who wait are freed before the token is kept
-        self._keep(mine, supplied.token, is_from_store=supplied.is_from_store)
+        mine.is_over = True
+        mine.held_by_leader.release()
+        time.sleep(0.05)
+        mine.held_by_leader.acquire()
+        self._keep(mine, supplied.token, is_from_store=supplied.is_from_store)

_wire: jwt is imported with the package
-import json
+import json
+import jwt

_endpoint: a pickled auth loses the lent session
-    def request_token(self, credentials: ClientCredentials, tries: int) -> Token:
+    def __getstate__(self):
+        return vars(self) | {"_lent_session": None}
+
+    def request_token(self, credentials: ClientCredentials, tries: int) -> Token:

_auth: the hook stands behind those of the caller
-        return {**hooks, "response": [self._hook, *others]}
+        return {**hooks, "response": [*others, self._hook]}

_environment: an origin with a port is taken for the one with the default port
-    return f"{scheme}://{host}" if port == default_port else f"{scheme}://{host}:{port}"
+    return f"{scheme}://{host}"
"""

PAIRS = [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.In, ast.NotIn), (ast.Is, ast.IsNot)]
PAIRS += [(ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.Break, ast.Continue)]
SWAPS = dict(PAIRS) | {second: first for first, second in PAIRS}
FOR_TYPE_CHECKERS = {"Protocol", "TypedDict", "TYPE_CHECKING"}  # bases of a class, or the test of an `if`
OTHER_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
NEVER_READ = {"annotation", "returns", "ctx", "type_comment", "type_params"}  # by the program, when it runs
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Mutant:
    """One breakage: its name, which survives edits elsewhere, the module without and with it, and its lines."""

    room: str
    name: str
    before: str
    after: str
    lines: range | None  # of the file as it is; None at the level of a module or class, where all tests must look


def without(node, name, index):
    items = getattr(node, name)
    return changed(node, **{name: items[:index] + items[index + 1 :]})


def changed(node, **fields):
    twin = copy.copy(node)
    vars(twin).update(fields)
    return twin


def variants(node):  # noqa: C901, PLR0912 - one case for each kind of node
    """Yield what may stand in the place of *node*."""
    match node:
        case ast.Constant(value=bool(flag)):
            yield ast.Constant(not flag)
        case ast.Constant(value=int() | float() as number):
            yield from (ast.Constant(number + 1), ast.Constant(number - 1))
        case ast.Constant(value=str(text)):
            yield ast.Constant("XX" if text != "XX" else "")
        case ast.Name(id=name) if name in OTHER_NAMES:
            yield ast.Name(OTHER_NAMES[name], node.ctx)
        case ast.BoolOp(values=values):
            for index in range(len(values)):
                yield without(node, "values", index) if len(values) > 2 else values[1 - index]
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            yield from (left, right)
        case ast.comprehension(ifs=[_, *_]):
            yield changed(node, ifs=[])
        case ast.Call(keywords=keywords, args=args, func=func):
            yield from (without(node, "keywords", index) for index in range(len(keywords)))
            if isinstance(func, ast.Name) and func.id == "suppress":
                yield changed(node, args=[ast.Name("Exception")])
                yield from (without(node, "args", index) for index in range(len(args)))
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) not in ("None", "False"):  # near enough
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Delete() | ast.AugAssign():
            yield ast.Pass()
        case ast.Assign(targets=[target, *_]) | ast.AnnAssign(target=target, value=ast.expr()):
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            if any(isinstance(part, ast.Attribute | ast.Subscript) for part in parts):
                yield ast.Pass()
        case ast.FunctionDef(decorator_list=decorators):
            yield from (without(node, "decorator_list", index) for index in range(len(decorators)))
        case ast.ExceptHandler(type=caught):
            yield changed(node, type=ast.Tuple([]))
            if isinstance(caught, ast.Tuple):
                yield from (changed(node, type=without(caught, "elts", index)) for index in range(len(caught.elts)))
            wider = "BaseException" if isinstance(caught, ast.Name) and caught.id == "Exception" else "Exception"
            yield changed(node, type=ast.Name(wider))
        case ast.Try(finalbody=[_, *_], handlers=handlers, body=body):
            yield changed(node, finalbody=[]) if handlers else ast.If(ast.Constant(True), body, [])  # noqa: FBT003


def is_for_type_checkers(node):
    """Return whether nothing in *node* matters when the program runs."""
    tests = node.bases if isinstance(node, ast.ClassDef) else [node.test] if isinstance(node, ast.If) else []
    return any(ast.unparse(test) in FOR_TYPE_CHECKERS for test in tests)


def replacements(parent, name, index, node):
    """Yield what may stand in the place of *node*, given where it stands."""
    if type(node) in SWAPS:
        yield SWAPS[type(node)]()
    if name == "test" and not isinstance(node, ast.Constant):
        yield from (ast.Constant(True), ast.Constant(False))  # noqa: FBT003
    if name in ("defaults", "kw_defaults") and not isinstance(node, ast.Constant):
        yield ast.Constant(None)
    is_type_of_cast = isinstance(parent, ast.Call) and ast.unparse(parent.func) == "cast" and index == 0
    is_docstring = isinstance(parent, ast.Expr) and isinstance(node, ast.Constant)
    if not is_docstring and not (is_type_of_cast and name == "args"):
        yield from variants(node)


def edits(node, path=()):
    """Break the tree below *node* in one place after the other, and yield the path to it while it is broken."""
    path = (*path, node)
    for name, value in ast.iter_fields(node):
        if name in NEVER_READ:
            continue
        holder, places = (value, range(len(value))) if isinstance(value, list) else (vars(node), [name])
        for place in places:
            child = holder[place]
            if not isinstance(child, ast.AST) or is_for_type_checkers(child):
                continue
            for new in replacements(node, name, place, child):
                holder[place] = new
                yield (*path, child)
                holder[place] = child
            yield from edits(child, path)


def lines_of(path):
    """Return the lines whose tests may notice a change at the end of *path*; None for a module's or a class's own."""
    if not any(isinstance(node, FUNCTIONS) for node in path):
        return None
    statement = next(node for node in reversed(path) if isinstance(node, ast.stmt | ast.ExceptHandler))
    where = next(node for node in reversed(path) if hasattr(node, "lineno"))
    is_simple = not hasattr(statement, "body") or isinstance(statement, FUNCTIONS)
    first = statement.lineno
    return range(first, ((statement if is_simple else where).end_lineno or first) + 1)


def describe(before, after):
    """Return the difference with a few words of the same line around it."""
    start = next(at for at, pair in enumerate(zip(before, after + "\0", strict=False)) if pair[0] != pair[1])
    most = min(len(before), len(after)) - start
    same = next((at for at in range(most) if before[-1 - at] != after[-1 - at]), most)
    while start and before[start - 1] not in " \n([{":
        start -= 1
    while same and before[-same] not in " \n)]},:":
        same -= 1
    end = len(before) - same
    head = re.search(r"(?:(?<=\s)\S.{0,38})?$", before[:start])
    tail = re.match(r".{0,40}(?!\w)", before[end:])
    old, new = (" ".join(text.split()) for text in (before[start:end], after[start : len(after) - same]))
    return f"{head[0] if head else ''}{{{old[:60]} -> {new[:60]}}}{tail[0] if tail else ''}".rstrip()


def mutants_of(room):
    source = room.read_text(encoding="utf-8")
    tree = ast.parse(source)
    before = ast.unparse(tree)
    found = {}
    names = Counter()
    for path in edits(tree):
        after = ast.unparse(tree)
        if after in found or after == before:
            continue
        inside = ".".join(node.name for node in path if isinstance(node, (*FUNCTIONS, ast.ClassDef))) or "module"
        name = f"{room.stem} {inside}: {describe(before, after)}"
        names[name] += 1
        number = f" ({names[name]})" if names[name] > 1 else ""
        found[after] = Mutant(room.stem, name + number, before, after, lines_of(path))
    for block in NAMED.strip().split("\n\n"):
        title, *lines = block.splitlines()
        if title.startswith(f"{room.stem}:"):
            old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] == sign) for sign in "-+")
            if f"\n{source}".count(f"\n{old}") != 1:
                sys.exit(f"In {room.name} these lines don't stand once:\n{old}Adapt NAMED in {__file__}.")
            found[title] = Mutant(room.stem, f"named: {title}", source, source.replace(old, new), None)
    return list(found.values())
