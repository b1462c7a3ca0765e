"""Names seen where they are defined, without a grammar."""

import pytest

from c2llm_integrations.code.lexical_terms import defined_names, defines


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def one(x):\n    return two(x)\n", ["one"]),
        ("class Foo(Bar):\n    async def go(self): ...\n", ["Foo", "go"]),
        ("export const schema = z.object({})\n  const local = 1\n", ["schema"]),
        ("app.use = function use(fn) {\n  if (fn) {\n    return next(fn)\n  }\n}\n", ["use"]),
        ("func (r *Router) Use(x int) error {\n", ["Use"]),
        ("pub fn parse<T>(x: T) -> T {\n    while (true) {}\n}\n", ["parse", "parse"]),
        ("    public int size(List<String> all) throws IOException {\n", ["size"]),
        ("void Map::clear()\n{\n", ["clear"]),
        ("interface A {}\ntype B = A\nenum C { D }\n", ["A", "B", "C"]),
        ("#define LIMIT 3\nstruct point { int x; };\n", ["LIMIT", "point"]),
        ("expect(x).toBe({\n", []),
        ("x = f(1)\n", []),
    ],
)
def test_defined_names(text, names):
    assert defined_names(text) == names


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("class Foo:\n", "Foo", True),
        ("class  FooBar:\n", "Foo", False),
        ("x = Foo()\n", "Foo", False),
        ("    const local = 1\n", "local", True),
        ("Foo", "Foo", False),
        ("function $a() {}", "$a", True),
        ("class a.b", "a.b", True),
        ("", "Foo", False),
    ],
)
def test_defines(text, name, found):
    assert defines(text, name) is found
