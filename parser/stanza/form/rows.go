package form

import "parley/parser/stanza"

// Rows is a result of several items (XEP-0004 §3.4), each with a value for every
// column; an empty one is left out. formType and title may be empty.
func Rows(formType, title string, columns []Field, rows [][]string) *stanza.Element {
	x := (&Form{Kind: Result, Type: formType, Title: title}).Element()
	reported := el("reported")
	for _, c := range columns {
		reported.Add(Field{Var: c.Var, Type: c.Type, Label: c.Label}.element())
	}
	x.Add(reported)
	for _, row := range rows {
		item := el("item")
		for i, v := range row {
			if v != "" {
				item.Add(Field{Var: columns[i].Var, Values: []string{v}}.element())
			}
		}
		x.Add(item)
	}
	return x
}
