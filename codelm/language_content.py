"""Which language a text is in, where its extension is used by several: `.h`, `.m`, `.ts` and others."""

import re

_WINDOW = 65_536  # characters looked at


def told_apart(extension: str, text: str, assumed: str) -> str:
    """The language of a text with this extension; `assumed` where the text does not speak against it."""
    if extension not in _RULES:
        return assumed
    text = text[:_WINDOW].removeprefix("\ufeff").replace("\r\n", "\n")
    if extension in _C_LIKE:
        text = _bare(text)
    return next((language for language, pattern in _RULES[extension] if pattern.search(text)), assumed)


def _any(*patterns: str, flags: re.RegexFlag = re.M) -> re.Pattern[str]:
    return re.compile("|".join(patterns), flags)


_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?(?:\*/|\Z)|"(?:\\.|[^"\\\n])*"', re.S)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(if|ifdef|ifndef|else|elif|endif)\b(.*)$")
_C_LIKE = {"h", "h.in"}


def _bare(text: str) -> str:
    """C without what only C++ compilers see, without comments and what strings say."""
    text = _COMMENT_OR_STRING.sub(lambda found: '""' if found[0][0] == '"' else " ", text)
    if "__cplusplus" not in text:
        return text
    kept: list[str] = []
    open_ifs: list[str] = []  # for each: is this part for "C++", is it the one for "C", or does it not ask ("")
    for line in text.split("\n"):
        if found := _DIRECTIVE.match(line):
            match found[1]:
                case "endif":
                    del open_ifs[-1:]
                case "else" | "elif":
                    open_ifs[-1:] = ["C++" if open_ifs[-1:] == ["C"] else ""]
                case word:
                    open_ifs.append(_asks_for(word, found[2]))
        elif "C++" not in open_ifs:
            kept.append(line)
    return "\n".join(kept)


def _asks_for(word: str, condition: str) -> str:
    if "__cplusplus" not in condition or re.match(r"\s*__cplusplus\s*[<>]", condition):
        return ""  # which C++ it is, only C++ asks
    return "C" if word == "ifndef" or re.search(r"![ \t(]*(?:defined|__cplusplus)", condition) else "C++"


# What begins a line is looked for at once, and the rest apart: a pattern that begins with letters is found quickly.
_OBJECTIVE_C = (
    _any(
        r"^(?:[-+][ \t]*\([ \t]*\w+[ \t*]*\)|[ \t]*(?:#[ \t]*import\b|"
        r"@(?:interface|implementation|protocol|property|end|class|import|synthesize|optional|required)\b))"
    ),
    _any(r"NS_(?:ENUM|OPTIONS|ASSUME_NONNULL_BEGIN)\b"),
    _any(r"\[\[?\w+ (?:alloc|new|class|shared\w*)\]"),
)
_CPLUSPLUS = (
    _any(
        r"^[ \t]*(?:template[ \t]*<|(?:inline[ \t]+)?namespace\b[\w:\s()]{0,200}\{"
        r"|using[ \t]+(?:namespace\b|[\w:]+[ \t]*(?:=|;))"
        r"|(?:public|private|protected)[ \t]*:"
        r"|(?:enum[ \t]+)?class[ \t]+(?:\w+[ \t]+)*\w+[ \t]*(?:final[ \t]*)?(?:[:{;]|$)"
        r"|(?:struct|union)[ \t]+\w+[ \t]*(?:final[ \t]*)?:[ \t]*(?:public|private|protected|\w+[ \t]*[{,])"
        r"|#[ \t]*include[ \t]*<[a-z_]+>"
        r"|(?:virtual|friend|explicit|mutable|constexpr)[ \t])"
    ),
    _any(r"std::\w"),
    _any(r"_cast[ \t]*<"),
    _any(r"::~?\w+[ \t]*\("),
    _any(r"operator[ \t]*(?:[-+*/%=<>!&|^~\[(]|new\b|delete\b)"),
    _any(r"\)[ \t]*(?:const[ \t]*)?(?:noexcept\b|override\b|=[ \t]*(?:delete|default)[ \t]*;)"),
)
_PROLOG = _any(r"^[ \t]*:-[ \t]*\w", r"^[a-z]\w*(?:\([^\n]*\))?[ \t]*:-", r"^[a-z]\w*\([^()\n]*\)\.[ \t]*$", r"^\?-")
_PERL = _any(
    r"^#!.*\bperl\b",
    r"^[ \t]*use[ \t]+(?:strict|warnings|v?5[.\d]*|[A-Z]\w+(?:::\w+)*|utf8|lib|base|parent|constant|feature)\b",
    r"^[ \t]*(?:my|our|local)[ \t]*[$@%(]",
    r"^[ \t]*sub[ \t]+\w+",
    r"^[ \t]*package[ \t]+[\w:]+[ \t]*[;{]",
    r"^=(?:pod|head[1-4]|cut)\b",
    r"^[ \t]*[$@%]\w+[ \t]*=",
)
_RAKU = _any(r"^[ \t]*use[ \t]+v6\b", r"^#!.*\braku\b", r"^[ \t]*(?:unit[ \t]+(?:module|class)|multi[ \t]+sub)\b")
_COMMON_LISP = _any(r"^[ \t]*\((?:in-package|def\w+|eval-when|setf|setq|let)\b", flags=re.M | re.I)
_FORTH = _any(r"^: \S+", r"^\\ ", r"^(?:variable|constant|create) \S+[ \t]*$", flags=re.M | re.I)
_MAKE_DEPENDENCIES = _any(r"\A(?:#[^\n]*\n|\s)*[^\s:()#]+\.(?:o|lo|d|obj|pp|dep)(?:[ \t]+[^\s:]+)*[ \t]*:")

_RULES: dict[str, tuple[tuple[str, re.Pattern[str]], ...]] = {
    "h": (*(("Objective-C", sign) for sign in _OBJECTIVE_C), *(("C++", sign) for sign in _CPLUSPLUS)),
    "m": (
        ("Mercury", _any(r"^[ \t]*:-[ \t]*(?:module|import_module|pred|func|interface|implementation)\b")),
        *(("Objective-C", sign) for sign in _OBJECTIVE_C),
        ("Objective-C", _any(r"^[ \t]*#[ \t]*(?:include|define|ifn?def|pragma)\b", r"^[ \t]*//")),
        (
            "Mathematica",
            _any(
                r"^[ \t]*\(\*",
                r"^[ \t]*(?:BeginPackage|Begin|Needs|Get|Module|Block|Clear|ClearAll)\[",
                r"^[ \t]*\w+\[[^\]\n]*_[^\]\n]*\][ \t]*:?=",
            ),
        ),
        (
            "MATLAB",
            _any(
                r"^[ \t]*%",
                r"^[ \t]*function\b[^{]*$",
                r"^[ \t]*classdef\b",
                r"^[ \t]*end[ \t]*;?[ \t]*$",
                r"\.\.\.[ \t]*$",
                r"^[ \t]*(?:clear|clc|close|hold)\b(?:[ \t]+\w+)?[ \t]*;?[ \t]*$",
                r"^[ \t]*\[?\w+(?:\([^()\n]*\))?(?:,[ \t]*\w+)*\]?[ \t]*=[^=\n{}]*;?[ \t]*$",
                r"^[ \t]*(?:disp|fprintf|plot|figure)[ \t]*\(",
            ),
        ),
    ),
    "ts": (("XML", _any(r"\A\s*(?:<\?xml\b|<!DOCTYPE TS\b|<TS\b)")),),
    "tsx": (("XML", _any(r"\A\s*<\?xml\b")),),
    "pl": (("Raku", _RAKU), ("Perl", _PERL), ("Prolog", _PROLOG)),
    "pm": (("Raku", _RAKU),),
    "t": (
        ("Raku", _RAKU),
        ("Perl", _PERL),
        (
            "Turing",
            _any(
                r"^[ \t]*(?:put|get)[ \t]+[\"\w]",
                r"^[ \t]*(?:var|const)[ \t]+\w+(?:,[ \t]*\w+)*[ \t]*:",
                r"^[ \t]*(?:proc|procedure|fcn|function)[ \t]+\w+",
                r"^[ \t]*end[ \t]+\w+[ \t]*$",
            ),
        ),
    ),
    "pro": (
        ("Prolog", _PROLOG),
        ("IDL", _any(r"^[ \t]*(?:pro|function)[ \t]+\w+[ \t]*(?:,|$)", flags=re.M | re.I)),
        ("QMake", _any(r"^[ \t]*(?:[A-Z_]+[\w.]*[ \t]*[-+*~]?=|include\()")),
        ("Proguard", _any(r"^[ \t]*-(?:keep|dont|optimization|assume|repackage)\w*\b")),
    ),
    "r": (("Rebol", _any(r"^[ \t]*(?:REBOL|Red)[ \t]*\[", flags=re.M | re.I)),),
    "v": (
        (
            "Verilog",
            _any(
                r"\bendmodule\b",
                r"^[ \t]*`(?:timescale|define|include|ifn?def)\b",
                r"^[ \t]*(?:always|assign|initial)[ \t@(]",
            ),
        ),
        (
            "Coq",
            _any(
                r"^[ \t]*(?:Theorem|Lemma|Definition|Fixpoint|Inductive|Proof|Qed|Corollary|Axiom)\b",
                r"^[ \t]*(?:From[ \t]+\w+[ \t]+)?Require[ \t]+(?:Import|Export)?",
                r"^[ \t]*(?:Module|Section|End)[ \t]+\w+[ \t]*\.",
            ),
        ),
        (
            "V",
            _any(
                r"^[ \t]*(?:pub[ \t]+)?fn[ \t]+[\w(]",
                r"^[ \t]*import[ \t]+[\w.]+[ \t]*$",
                r"^[ \t]*(?:pub[ \t]+)?(?:struct|enum|interface)[ \t]+\w+[ \t]*\{",
                r"^module[ \t]+\w+[ \t]*$",
            ),
        ),
    ),
    "cls": (
        ("TeX", _any(r"^[ \t]*\\(?:ProvidesClass|NeedsTeXFormat|LoadClass|RequirePackage|documentclass)\b")),
        ("VBA", _any(r"^VERSION [\d.]+ CLASS", r"^Attribute VB_", r"^[ \t]*Option Explicit\b")),
        (
            "OpenEdge ABL",
            _any(r"^[ \t]*class[ \t]+[\w.]+[^\n{]*:[ \t]*$", r"^[ \t]*end class\.", flags=re.M | re.I),
        ),
        ("ObjectScript", _any(r"^Class[ \t]+[\w%]+(?:\.[\w]+)+[ \t]+(?:Extends|\[|\{)")),
        ("TeX", _any(r"\A\s*%", r"^[ \t]*\\(?:def|newcommand|input)\b")),
    ),
    "inc": (
        ("PHP", _any(r"<\?(?:php\b|=)", flags=re.I)),
        ("HTML", _any(r"\A\s*<(?:!DOCTYPE|!--|html|head|div|table|p|ul|a|script)\b", flags=re.I)),
        ("BitBake", _any(r"^(?:SRC_URI|DESCRIPTION|SUMMARY|LICENSE|PV|DEPENDS|inherit|do_\w+\s*\()[\w\s:]*[?+=(]")),
        ("Pascal", _any(r"^[ \t]*\{\$\w", r"^[ \t]*(?:procedure|function|begin|implementation)\b", flags=re.M | re.I)),
        ("Assembly", _any(r"^[ \t]*[%.](?:macro|define|equ|include)\b", r"^[ \t]*;", r"^\w+[ \t]+(?:equ|macro)\b")),
    ),
    "fs": (
        ("GLSL", _any(r"^[ \t]*#version[ \t]+\d", r"^[ \t]*(?:precision|uniform|varying|void[ \t]+main)\b")),
        ("F#", _any(r"^[ \t]*(?:let|open|module|namespace|type|member|#light|#nowarn)\b", r"^[ \t]*//")),
        ("Forth", _FORTH),
    ),
    "d": (
        ("Makefile", _MAKE_DEPENDENCIES),
        (
            "DTrace",
            _any(
                r"^[ \t]*#pragma[ \t]+D\b", r"^#!.*\bdtrace\b", r"^[\w$*-]*:[\w$*-]*:[\w$*-]*:[\w$*-]*[ \t]*(?:[/{,]|$)"
            ),
        ),
    ),
    "md": (("GCC Machine Description", _any(r"\A(?:;;[^\n]*\n|\s)*(?:;; |\(define_)")),),
    "mod": (("XML", _any(r"^[ \t]*<!(?:ENTITY|ELEMENT|ATTLIST)\b")),),
    "l": (
        ("Lex", _any(r"^%(?:[{}%]|option\b)")),
        ("Common Lisp", _COMMON_LISP),
        ("Roff", _any(r"^\.(?:TH|SH|Dd|Sh|\\\")\b")),
    ),
    "cl": (
        ("OpenCL", _any(r"\b(?:__)?kernel[ \t]+void\b", r"\b__global\b", r"^[ \t]*#pragma OPENCL\b")),
        ("Common Lisp", _COMMON_LISP),
    ),
    "pp": (("Pascal", _any(r"^[ \t]*(?:unit|program|uses)[ \t]+\w+", r"^[ \t]*end\.[ \t]*$", flags=re.M | re.I)),),
    "ml": (
        ("OCaml", _any(r"^[ \t]*let\b", r"^[ \t]*open[ \t]+\w+[ \t]*$", r"\bmatch\b.*\bwith\b", r";;[ \t]*$")),
        ("Standard ML", _any(r"^[ \t]*(?:fun|structure|signature|functor|datatype|val)[ \t]+\w")),
    ),
    "php": (("Hack", _any(r"\A\s*<\?hh\b")),),
    "hh": (("Hack", _any(r"\A\s*<\?hh\b")),),
    "rs": (
        ("RenderScript", _any(r"^[ \t]*#pragma[ \t]+(?:version|rs)\b")),
        ("XML", _any(r"\A\s*<\?xml\b")),
    ),
    "sc": (
        ("Scala", _any(r"^[ \t]*(?:import|package|object|class|trait|case class|def)[ \t]+\w")),
        ("SuperCollider", _any(r"\bSynthDef\b", r"^[ \t]*var\b[^=\n]*;", r"\{[ \t]*\|", r"~\w+[ \t]*=", r"\.play\b")),
    ),
    "bas": (
        (
            "VBA",
            _any(r"^Attribute VB_", r"^[ \t]*Option Explicit\b", r"^[ \t]*(?:Public|Private)[ \t]+(?:Sub|Function)\b"),
        ),
        ("FreeBASIC", _any(r"^[ \t]*#(?:include|lang|define|ifn?def)\b", flags=re.M | re.I)),
    ),
    "gd": (("GAP", _any(r"^[ \t]*(?:Declare|Install)\w+\(", r"^#[#Y ]")),),
    "f": (("Forth", _FORTH),),
    "for": (("Forth", _FORTH),),
    "cs": (("Smalltalk", _any(r"^![\w\s]+methodsFor: ")),),
    "i": (("Assembly", _any(r"^[ \t]*[.;]\w+", r"^\w+:[ \t]*$")),),
    "tag": (("Java Server Pages", _any(r"<%@")),),
    "re": (("C++", _any(r"^[ \t]*#[ \t]*include\b", r"/\*!re2c\b")),),
    "tm": (("TeX", _any(r"\A<TeXmacs\|")),),
    "res": (("XML", _any(r"\A\s*<\?xml\b")),),
    "sp": (("SPICE", _any(r"^\.(?:tran|subckt|ends|model|include|param|dc|ac)\b", flags=re.M | re.I)),),
    "spec": (("Python", _any(r"^[ \t]*(?:import|from)[ \t]+\w+", r"\bAnalysis\(")),),
}
_RULES["h.in"] = _RULES["h"]
