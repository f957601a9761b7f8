package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

const (
	maxFunctionLines = 70
	maxFileLines     = 600
)

// checkGo returns what is wrong with one Go file; name is relative to the root.
func checkGo(name string, source []byte) []string {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	report := func(at token.Pos, format string, args ...any) {
		found = append(found, fmt.Sprintf("%s:%d: %s", name, fset.Position(at).Line, fmt.Sprintf(format, args...)))
	}
	if !strings.Contains(filepath.ToSlash(name), "/") {
		report(file.Pos(), "no Go file at the root: its package has a folder")
	}
	if strings.HasSuffix(name, "_test.go") {
		checkSkips(file, report)
		return found
	}
	if ast.IsGenerated(file) {
		return found
	}
	if lines := fset.Position(file.FileEnd).Line; lines > maxFileLines {
		report(file.Pos(), "%d lines: a file has one subject and at most %d lines", lines, maxFileLines)
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			if lines := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1; lines > maxFunctionLines {
				report(f.Pos(), "%s has %d lines: a function fits a screen of %d", f.Name.Name, lines, maxFunctionLines)
			}
		}
		checkDocs(decl, report)
	}
	return found
}

// checkSkips finds tests that are skipped without a reason.
func checkSkips(file *ast.File, report func(token.Pos, string, ...any)) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) > 0 {
			return true
		}
		if method, ok := call.Fun.(*ast.SelectorExpr); ok && (method.Sel.Name == "Skip" || method.Sel.Name == "SkipNow") {
			report(call.Pos(), "a test is skipped without a reason")
		}
		return true
	})
}

// checkDocs finds exported names without a comment: functions, methods of exported
// types, types, methods of interfaces, constants and variables (where the comment of
// the group counts too).
func checkDocs(decl ast.Decl, report func(token.Pos, string, ...any)) {
	missing := func(name *ast.Ident, comments ...*ast.CommentGroup) {
		for _, comment := range comments {
			if strings.TrimSpace(comment.Text()) != "" {
				return
			}
		}
		if name.IsExported() {
			report(name.Pos(), "%s is exported and has no comment", name.Name)
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type)) {
			missing(d.Name, d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				missing(s.Name, s.Doc, s.Comment, onlyOne(d))
				checkInterface(s, missing)
			case *ast.ValueSpec:
				for _, name := range s.Names {
					missing(name, s.Doc, s.Comment, d.Doc)
				}
			}
		}
	}
}

// checkInterface leaves out interfaces of one method, whose own comment is its contract.
func checkInterface(s *ast.TypeSpec, missing func(*ast.Ident, ...*ast.CommentGroup)) {
	i, ok := s.Type.(*ast.InterfaceType)
	if !ok || !s.Name.IsExported() || len(i.Methods.List) == 1 {
		return
	}
	for _, method := range i.Methods.List {
		for _, name := range method.Names {
			missing(name, method.Doc, method.Comment)
		}
	}
}

// onlyOne is a declaration's comment if it can only mean its one type.
func onlyOne(d *ast.GenDecl) *ast.CommentGroup {
	if len(d.Specs) == 1 {
		return d.Doc
	}
	return nil
}

// receiver is the name of a method's type.
func receiver(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	}
	return ""
}

// Functions fit a screen, files have one subject, exported names say what they are.
func TestSource(t *testing.T) {
	documented := map[string]bool{} // by folder: does one of its files describe the package?
	for name, text := range projectFiles(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		for _, problem := range checkGo(name, text) {
			t.Error(problem)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.PackageClauseOnly)
		if err == nil && !strings.HasSuffix(name, "_test.go") {
			folder := filepath.Dir(name)
			documented[folder] = documented[folder] || file.Doc.Text() != ""
		}
	}
	for folder, ok := range documented {
		if !ok {
			t.Errorf("%s: no file describes the package", folder)
		}
	}
}

func TestSourceRulesAreProved(t *testing.T) {
	lines := func(n int) string { return strings.Repeat("\t_ = 0\n", n) }
	cases := map[string]struct {
		name, source string
		want         string // empty: nothing is wrong
	}{
		"fits":             {"a/a.go", "package a\n\nfunc f() {\n" + lines(68) + "}\n", ""},
		"long function":    {"a/a.go", "package a\n\nfunc f() {\n" + lines(69) + "}\n", "f has 71 lines"},
		"long test":        {"a/a_test.go", "package a\n\nfunc f() {\n" + lines(700) + "}\n", ""},
		"long file":        {"a/a.go", "package a\n" + strings.Repeat("//\n", 600), "601 lines"},
		"long, generated":  {"a/a.go", "// Code generated by x. DO NOT EDIT.\n\npackage a\n" + strings.Repeat("//\n", 600), ""},
		"root":             {"a.go", "package a\n", "no Go file at the root"},
		"function":         {"a/a.go", "package a\n\nfunc F() {}\n", "F is exported"},
		"hidden type":      {"a/a.go", "package a\n\ntype t struct{}\n\nfunc (t) M() {}\n", ""},
		"method":           {"a/a.go", "package a\n\n// T is t.\ntype T[K any] struct{}\n\nfunc (*T[K]) M() {}\n", "M is exported"},
		"type":             {"a/a.go", "package a\n\ntype T int\n", "T is exported"},
		"interface method": {"a/a.go", "package a\n\n// I is i.\ntype I interface {\n\t// L is l.\n\tL()\n\tM()\n}\n", "M is exported"},
		"one method":       {"a/a.go", "package a\n\n// I does it.\ntype I interface {\n\tM()\n}\n", ""},
		"constant":         {"a/a.go", "package a\n\nconst (\n\t// A is a.\n\tA = 1\n\tB = 2\n)\n", "B is exported"},
		"constant group":   {"a/a.go", "package a\n\n// Letters.\nconst (\n\tA = 1\n\tB = 2\n)\n", ""},
		"skip":             {"a/a_test.go", "package a\n\nfunc T(t tt) { t.Skip() }\n", "without a reason"},
		"skip now":         {"a/a_test.go", "package a\n\nfunc T(t tt) { t.SkipNow() }\n", "without a reason"},
		"skip, explained":  {"a/a_test.go", "package a\n\nfunc T(t tt) { t.Skip(\"needs root\") }\n", ""},
		"syntax":           {"a/a.go", "package\n", "expected"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(checkGo(c.name, []byte(c.source)), "; ")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
