package early

import (
	"io"
	"os"
	"strconv"
)

// defaultFile is config.DefaultFile.
const defaultFile = "/etc/walship/walship.toml"

// readSettings reads the file of settings as package config does: the one that
// the flag names, else the one that the environment names, else the default one,
// which needn't be there.
func readSettings(config string, environ []string) ([]byte, error) {
	if config == "" {
		config = variable(environ, "WALSHIP_CONFIG")
	}
	if config != "" {
		return readFile(config)
	}
	content, err := readFile(defaultFile)
	if os.IsNotExist(err) {
		return nil, nil
	}
	return content, err
}

// readFile reads as much of a file as package config takes.
func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, 1<<20+1))
}

// stateDirectory is where the state directory is likely to be: see the keys of
// package config. If it is elsewhere there is no record, and main finds it.
func stateDirectory(settings []byte, environ []string) string {
	if dir := variable(environ, "WALSHIP_STATE_DIRECTORY"); dir != "" {
		return dir
	}
	if dir := setting(string(settings), "state_directory"); dir != "" {
		return dir
	}
	if dir := variable(environ, "XDG_STATE_HOME"); hasPrefix(dir, "/") {
		return dir + "/walship"
	}
	home := variable(environ, "HOME")
	if home == "" {
		home = userHome()
	}
	if !hasPrefix(home, "/") {
		return ""
	}
	return home + "/.local/state/walship"
}

// setting finds a value that stands as key = "value" on a line of its own before
// the first section.
func setting(toml, key string) string {
	for toml != "" {
		line, rest, _ := cut(toml, '\n')
		toml = rest
		if hasPrefix(line, "[") {
			break
		}
		before, quoted, _ := cut(line, '"')
		if before == key+" = " || before == key+"=" {
			value, _, _ := cut(quoted, '"')
			return value
		}
	}
	return ""
}

// userHome is the home directory that the password database names. Package
// os/user would initialise too much.
func userHome() string {
	content, err := readFile("/etc/passwd")
	if err != nil {
		return ""
	}
	uid := strconv.Itoa(os.Getuid())
	for lines := string(content); lines != ""; {
		line, rest, _ := cut(lines, '\n')
		lines = rest
		var fields [6]string
		for i := range fields {
			fields[i], line, _ = cut(line, ':')
		}
		if fields[2] == uid {
			return fields[5]
		}
	}
	return ""
}

// variable finds one of the environment; "" where it isn't set.
func variable(environ []string, name string) string {
	for _, pair := range environ {
		if before, value, _ := cut(pair, '='); before == name {
			return value
		}
	}
	return ""
}
