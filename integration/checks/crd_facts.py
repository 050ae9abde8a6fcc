#!/usr/bin/python3
"""Facts of Gateway API's CustomResourceDefinitions, one field a line, for routes/schema_facts.txt.

    crd_facts.py CRD.yaml... > routes/schema_facts.txt

Give it the experimental channel's files. Only served versions are read, only `spec`, and only names, types, bounds,
enumerations and defaults; versions with the same facts stand together. Needs python3-yaml.
"""

import sys

import yaml

BOUNDS = ("minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum")


def facts_of(schema, required):
    facts = [schema.get("type", "any")]
    if required:
        facts.append("required")
    facts += [f"{bound}={schema[bound]}" for bound in BOUNDS if bound in schema]
    if "enum" in schema:
        facts.append("enum=" + ",".join(str(word) for word in schema["enum"]))
    if "default" in schema and not isinstance(schema["default"], (dict, list)):
        facts.append(f"default={schema['default']}")
    if schema.get("x-kubernetes-list-type") == "map" and len(schema["x-kubernetes-list-map-keys"]) == 1:
        facts.append("key=" + schema["x-kubernetes-list-map-keys"][0])
    if schema.get("x-kubernetes-list-type") == "set":
        facts.append("set")
    if "pattern" in schema:
        facts.append("pattern")
    return facts


def walk(schema, path, required, lines):
    lines.append(path + " " + " ".join(facts_of(schema, required)))
    for name, member in (schema.get("properties") or {}).items():
        walk(member, f"{path}.{name}", name in schema.get("required", []), lines)
    if "items" in schema:
        walk(schema["items"], path + "[]", False, lines)


def main():
    for file in sys.argv[1:]:
        with open(file, encoding="utf-8") as stream:
            definition = yaml.safe_load(stream)["spec"]
        versions = {}
        for version in definition["versions"]:
            if version["served"]:
                lines = []
                schema = version["schema"]["openAPIV3Schema"]
                walk(schema["properties"]["spec"], "spec", "spec" in schema.get("required", []), lines)
                versions.setdefault("\n".join(lines), []).append(version["name"])
        for lines, names in versions.items():
            print("#", definition["group"], definition["names"]["kind"], *names)
            print(lines)


main()
