package main

import "testing"

func TestPlainPush(t *testing.T) {
	for _, test := range []struct {
		args         []string
		config, path string
		plain        bool
	}{
		{[]string{"walship", "wal", "push", "pg_wal/1"}, "", "pg_wal/1", true},
		{[]string{"walship", "--config", "FILE", "wal", "push", "pg_wal/1"}, "FILE", "pg_wal/1", true},
		{[]string{"walship", "--config=FILE", "wal", "push", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "--repository", "URL", "wal", "push", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "wal", "push", "--strict"}, "", "", false},
		{[]string{"walship", "wal", "push", "--strict", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "wal", "push", "pg_wal/1", "pg_wal/2"}, "", "", false},
		{[]string{"walship", "wal", "fetch", "pg_wal/1"}, "", "", false},
		{[]string{"walship", "wal", "push"}, "", "", false},
		{[]string{"walship", "--config"}, "", "", false},
		{[]string{"walship"}, "", "", false},
		{nil, "", "", false},
	} {
		config, path, plain := plainPush(test.args)
		if config != test.config || path != test.path || plain != test.plain {
			t.Errorf("%q: config %q, path %q, plain %t; want %q, %q, %t", test.args, config, path, plain, test.config, test.path, test.plain)
		}
	}
}
