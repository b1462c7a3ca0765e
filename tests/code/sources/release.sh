#!/bin/sh
set -eu

tag() {
    git tag -a "v$1" -m "Release $1"
}

version=$(cat VERSION)
tag "$version"

git push --tags
