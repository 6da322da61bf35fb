"""Languages by name, by what a text says where several share an extension, and by the first line."""

import sysconfig
from pathlib import Path

import pytest

from codelm.languages import LANGUAGES, known_language, language_of

ASKED_FOR = (
    *("Python", "JavaScript", "TypeScript", "TSX", "Java", "Go", "C", "C++", "C#", "Rust", "SQL", "Shell", "Kotlin"),
    *("Swift", "PHP", "Ruby", "Markdown", "Scala", "Haskell", "Lua", "Perl", "R", "Julia", "Dart", "Elixir", "Zig"),
    *("Erlang", "OCaml", "Clojure", "HTML", "CSS", "JSON", "YAML", "TOML", "XML", "CMake", "Makefile", "Dockerfile"),
)


def test_the_table_is_large() -> None:
    assert set(ASKED_FOR) | {"Jupyter Notebook", "reStructuredText", "Text"} <= set(LANGUAGES)
    assert len(LANGUAGES) > 200


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "Python"),
        ("b.PY", "Python"),
        ("x.pyx", "Cython"),
        ("index.d.ts", "TypeScript"),
        ("app.tsx", "TSX"),
        ("app.min.js", "JavaScript"),
        ("page.blade.php", "Blade"),
        ("page.php", "PHP"),
        ("index.html.erb", "HTML+ERB"),
        ("Main.java", "Java"),
        ("a.b.c.go", "Go"),
        ("x.C", "C++"),
        ("x.c", "C"),
        ("x.H", "C++"),
        ("x.h", "C"),
        ("Program.cs", "C#"),
        ("schema.sql", "SQL"),
        ("body.pkb", "PLSQL"),
        ("build.gradle", "Gradle"),
        ("build.gradle.kts", "Kotlin"),
        ("run.ipynb", "Jupyter Notebook"),
        ("README.md", "Markdown"),
        ("README", "Text"),
        ("src/Makefile", "Makefile"),
        ("GNUmakefile", "Makefile"),
        ("rules.mk", "Makefile"),
        ("Dockerfile", "Dockerfile"),
        ("Dockerfile.dev", "Dockerfile"),
        ("Containerfile", "Dockerfile"),
        ("CMakeLists.txt", "CMake"),
        ("notes.txt", "Text"),
        ("Gemfile", "Ruby"),
        ("Rakefile", "Ruby"),
        ("Vagrantfile", "Ruby"),
        ("Podfile", "Ruby"),
        ("Jenkinsfile", "Groovy"),
        ("BUILD", "Starlark"),
        ("WORKSPACE", "Starlark"),
        ("BUILD.bazel", "Starlark"),
        ("SConstruct", "Python"),
        (".bashrc", "Shell"),
        ("go.mod", "Go Module"),
        ("tsconfig.json", "JSON with Comments"),
        ("package.json", "JSON"),
        ("a\\b\\c.rs", "Rust"),
        (Path("a/b.kt"), "Kotlin"),
        ("x.swift", "Swift"),
        ("photo.png", None),
        ("data.tar.gz", None),
        ("weights.npz", None),
        ("py", None),
        (".py.d/x", None),
        ("", None),
        (".", None),
    ],
)
def test_by_name(path: str | Path, language: str | None) -> None:
    assert language_of(path) == language


@pytest.mark.parametrize(
    ("line", "language"),
    [
        ("#!/bin/sh", "Shell"),
        ("#!/usr/bin/env python3", "Python"),
        ("#!/usr/bin/env -S python3.12 -u", "Python"),
        ("#!/usr/bin/env PYTHONPATH=. python", "Python"),
        ("#! /usr/local/bin/perl -w", "Perl"),
        ("#!/usr/bin/nodejs", "JavaScript"),
        ("#!/usr/bin/ruby2.7", "Ruby"),
        ("#!/usr/bin/env deno", "TypeScript"),
        ("#!/opt/unheard-of", None),
        ("#!/usr/bin/env", None),
        ("#!", None),
        ("# a comment", None),
        ("", None),
    ],
)
def test_by_first_line(line: str, language: str | None) -> None:
    assert language_of("bin/tool", line + "\nrest of it\n") == language
    assert language_of("tool.py", line + "\n") == "Python"  # a name goes before


PLAIN_C = """
/* The class of template things, std::like; namespace foo { */
#ifndef X_H
#define X_H
#include <stdio.h>
#ifdef __cplusplus
extern "C" {
namespace hidden { class Foo; }
#endif
struct class_info { int class; const char *public; };
typedef int (*operator_t)(struct class_info *, void *);
static inline int private_count(struct class_info *x) { return x->class; } // using namespace std;
#if defined(__cplusplus)
}
#endif
#endif
"""

SNIPPETS: dict[str, list[tuple[str, str]]] = {
    "h": [
        ("C", PLAIN_C),
        ("C", "#pragma once\n#ifndef __cplusplus\ntypedef int bool;\n#else\ntemplate <class T> void f(T);\n#endif\n"),
        ("C", "typedef struct node { struct node *next; } node;\nvoid push(node **head, int value);\n"),
        ("C", 'const char *help = "use std::vector, template <T>";\nint main(void);\n'),
        ("C", "#if N != 0 && defined(__cplusplus)\nnamespace a { }\n#endif\nint x;\n"),
        ("C++", "#pragma once\n#include <vector>\nint f();\n"),
        ("C++", "namespace a::b {\nint f();\n}\n"),
        ("C++", "template <typename T>\nT twice(T x) { return x + x; }\n"),
        ("C++", "class Shape final : public Base {\n public:\n  virtual ~Shape() = default;\n};\n"),
        ("C++", "struct Point { bool operator==(const Point& o) const; };\n"),
        ("C++", "#if __cplusplus >= 201703L\n#include <string_view>\n#endif\n"),
        ("C++", "using Names = std::map<int, int>;\n"),
        ("Objective-C", "#import <Foundation/Foundation.h>\n@interface Dog : NSObject\n- (void)bark;\n@end\n"),
        ("Objective-C", "@protocol Pet <NSObject>\n@property (nonatomic) int age;\n@end\n"),
        ("Objective-C", "typedef NS_ENUM(NSInteger, Kind) { KindA };\n"),
    ],
    "m": [
        ("Objective-C", '#import "Dog.h"\n@implementation Dog\n- (void)bark { NSLog(@"woof"); }\n@end\n'),
        ("Objective-C", "// entry\n#include <stdio.h>\nint main() { return 0; }\n"),
        ("Objective-C", "int f(void) {\n  id x = [[Dog alloc] init];\n  return 1;\n}\n"),
        ("MATLAB", "function y = twice(x)\n% TWICE doubles\ny = 2 * x;\nend\n"),
        ("MATLAB", "clear all; close all;\nx = linspace(0, 1, 10);\nplot(x, x.^2)\n"),
        ("MATLAB", "classdef Account < handle\n  properties\n    total = 0\n  end\nend\n"),
        ("Mercury", ":- module hello.\n:- interface.\n:- import_module io.\n"),
        ("Mathematica", '(* ::Package:: *)\nBeginPackage["A`"]\nf[x_] := x^2\nEndPackage[]\n'),
        ("Mathematica", "square[x_Integer] := x * x\n"),
    ],
    "ts": [
        ("TypeScript", "export const x: number = 1;\n"),
        ("TypeScript", "import { A } from './a';\n// <TS> is not a tag here\nlet a: A<string>;\n"),
        ("XML", '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE TS>\n<TS version="2.1" language="de">\n'),
        ("XML", "<!DOCTYPE TS>\n<TS>\n<context></context>\n</TS>\n"),
        ("XML", "\ufeff<TS version='2'>\n</TS>\n"),
    ],
    "tsx": [("TSX", "export const A = () => <div/>;\n"), ("XML", '<?xml version="1.0"?>\n<tileset name="a"/>\n')],
    "pl": [
        ("Perl", "#!/usr/bin/perl\nprint 1;\n"),
        ("Perl", "use strict;\nmy $x = 1;\nsub f { return $x }\n"),
        ("Perl", "package Foo::Bar;\n1;\n"),
        ("Prolog", ":- use_module(library(lists)).\nappend([], L, L).\n"),
        ("Prolog", "parent(tom, bob).\nancestor(X, Y) :- parent(X, Y).\n"),
        ("Raku", "use v6;\nmy $x = 1;\n"),
    ],
    "t": [
        ("Perl", "use Test::More tests => 1;\nok(1);\n"),
        ("Turing", 'var x : int\nput "hello"\nget x\n'),
        ("Turing", 'procedure greet\n    put "hi"\nend greet\n'),
    ],
    "pro": [
        ("QMake", "QT += core gui\nTARGET = app\nSOURCES += main.cpp\n"),
        ("IDL", "pro hello\n  print, 'hi'\nend\n"),
        ("IDL", "FUNCTION twice, x\n  RETURN, 2*x\nEND\n"),
        ("Prolog", "father(a, b).\ngrand(X, Z) :- father(X, Y), father(Y, Z).\n"),
        ("Proguard", "-keep class com.example.** { *; }\n-dontwarn okio.**\n"),
    ],
    "r": [("R", "x <- c(1, 2)\nprint(x)\n"), ("Rebol", 'REBOL [Title: "x"]\nprint "hi"\n')],
    "v": [
        ("Verilog", "module counter(input clk, output reg [3:0] q);\nalways @(posedge clk) q <= q + 1;\nendmodule\n"),
        ("Verilog", "`timescale 1ns/1ps\n"),
        ("Coq", "Require Import Arith.\nTheorem a : 1 = 1.\nProof. reflexivity. Qed.\n"),
        ("Coq", "Inductive nat : Set := O | S (n : nat).\n"),
        ("V", "module main\nimport os\nfn main() {\n\tprintln('hi')\n}\n"),
        ("V", "pub struct User {\n\tname string\n}\n"),
    ],
    "cls": [
        ("Apex", "public with sharing class A {\n  @isTest static void f() {}\n}\n"),
        ("TeX", "\\NeedsTeXFormat{LaTeX2e}\n\\ProvidesClass{a}\n"),
        ("TeX", "% a class\n\\def\\a{b}\n"),
        ("VBA", 'VERSION 1.0 CLASS\nBEGIN\nEND\nAttribute VB_Name = "A"\n'),
        ("ObjectScript", "Class Demo.Person Extends %Persistent\n{\n}\n"),
        ("OpenEdge ABL", "CLASS a.b.C INHERITS D:\nEND CLASS.\n"),
    ],
    "inc": [
        ("PHP", "<?php\n$a = 1;\n"),
        ("HTML", "<div class='a'>x</div>\n"),
        ("BitBake", 'SUMMARY = "x"\nSRC_URI = "git://x"\ninherit cmake\n'),
        ("Assembly", "; macros\n%macro push2 2\n push %1\n%endmacro\n"),
        ("Pascal", "{$IFDEF X}\nprocedure a;\nbegin\nend;\n{$ENDIF}\n"),
        ("C++", 'X(1, "one")\nX(2, "two")\n'),
    ],
    "fs": [
        ("F#", "module A\nlet twice x = 2 * x\n"),
        ("GLSL", "#version 330 core\nuniform vec4 c;\nvoid main() { }\n"),
        ("Forth", "\\ words\n: square dup * ;\n"),
    ],
    "d": [
        ("D", "module a;\nimport std.stdio;\nvoid main() { writeln(1); }\n"),
        ("Makefile", "build/a.o: src/a.c \\\n  src/a.h\n"),
        ("DTrace", "#pragma D option quiet\nsyscall::open:entry\n{ }\n"),
        ("DTrace", "syscall::read:entry\n/pid == 1/\n{\n}\n"),
    ],
    "md": [
        ("Markdown", "# Title\n\n(define things)\n"),
        ("GCC Machine Description", ';; a port\n(define_insn "add")\n'),
    ],
    "mod": [("Modula-2", "MODULE Hello;\nBEGIN\nEND Hello.\n"), ("XML", "<!ENTITY % a 'b'>\n<!ELEMENT c (d)>\n")],
    "l": [
        ("Lex", "%{\n#include <x.h>\n%}\n%%\n[a-z]+ ;\n%%\n"),
        ("Common Lisp", "(in-package :a)\n(defun f (x) x)\n"),
        ("Roff", ".TH LS 1\n.SH NAME\nls\n"),
    ],
    "cl": [("OpenCL", "__kernel void f(__global int *x) {}\n"), ("Common Lisp", "(defun f (x) x)\n")],
    "pp": [("Puppet", "class ntp {\n  package { 'ntp': }\n}\n"), ("Pascal", "unit A;\ninterface\nend.\n")],
    "ml": [("OCaml", "let rec f x = x\n"), ("Standard ML", "fun f x = x\nstructure A = struct end\n")],
    "php": [("PHP", "<?php echo 1;"), ("Hack", "<?hh // strict\n")],
    "rs": [
        ("Rust", "fn main() {}\n"),
        ("RenderScript", "#pragma version(1)\n#pragma rs java_package_name(a)\n"),
    ],
    "sc": [("Scala", "object A extends App {}\n"), ("SuperCollider", "SynthDef(\\a, { |freq| })\n")],
    "bas": [
        ("BASIC", '10 PRINT "HI"\n20 GOTO 10\n'),
        ("VBA", 'Attribute VB_Name = "A"\nSub x()\nEnd Sub\n'),
        ("FreeBASIC", '#include "a.bi"\nprint 1\n'),
    ],
    "gd": [("GDScript", "extends Node\nfunc _ready():\n\tpass\n"), ("GAP", 'DeclareOperation("A", [IsObject]);\n')],
    "f": [("Fortran", "      PROGRAM A\n      END\n"), ("Forth", ": a 1 ;\n")],
}


@pytest.mark.parametrize(
    ("extension", "language", "text"), [(e, language, text) for e, some in SNIPPETS.items() for language, text in some]
)
def test_by_content(extension: str, language: str, text: str) -> None:
    assert language_of(f"src/file.{extension}", text) == language
    assert language_of(f"src/file.{extension}", text.replace("\n", "\r\n")) == language


def wrong(files: list[Path], language: str) -> list[str]:
    return [f.name for f in files if language_of(f, f.read_text(errors="replace")) != language]


def test_pythons_headers_are_c() -> None:
    headers = sorted(Path(sysconfig.get_path("include")).rglob("*.h"))
    if not headers:
        pytest.skip("Python's headers are not installed")
    assert wrong(headers, "C") == []


def test_headers_of_the_c_library_are_c_and_of_cplusplus_are_cplusplus() -> None:
    linux, cplusplus = (sorted(Path("/usr/include", name).rglob("*.h")) for name in ("linux", "c++"))
    if not linux or not cplusplus:
        pytest.skip("no system headers")
    assert wrong(linux, "C") == []
    # Some only define macros, or pass on to C's header.
    assert len(wrong(cplusplus, "C++")) < 0.12 * len(cplusplus)


def test_the_standard_library_is_python_whatever_it_says() -> None:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    assert wrong(files, "Python") == []


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("python", "Python"),
        ("c-sharp", "C#"),
        ("C++", "C++"),
        ("cpp", "C++"),
        ("Jupyter-Notebook", "Jupyter Notebook"),
        ("jupyter_notebook", "Jupyter Notebook"),
        ("Visual Basic", "Visual Basic .NET"),
        ("Rocq Prover", "Coq"),
        ("en", None),
        ("", None),
    ],
)
def test_other_spellings(name: str, language: str | None) -> None:
    assert known_language(name) == language


def test_hostile_text_is_quick() -> None:
    import time

    start = time.monotonic()
    for text in ("#" * 100_000, "class " * 20_000, "(" * 100_000, "namespace\n" * 10_000, "/*" * 50_000, " " * 100_000):
        for extension in SNIPPETS:
            language_of(f"a.{extension}", text)
    assert time.monotonic() - start < 10
