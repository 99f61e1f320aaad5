import java.util.List;
import java.util.Map;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.reindex.ReindexPlugin;
import org.elasticsearch.transport.Netty4Plugin;

/** One Elasticsearch server; its settings are the arguments, as {@code name=value}. */
final class ElasticsearchNode extends Node {
    private ElasticsearchNode(Environment environment) {
        super(environment, List.of(Netty4Plugin.class, ReindexPlugin.class), false);
    }

    public static void main(String[] arguments) throws Exception {
        Settings.Builder settings = Settings.builder();
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        ElasticsearchNode node = new ElasticsearchNode(InternalSettingsPreparer.prepareEnvironment(
                settings.build(), Map.of(), null, () -> "onelog"));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        node.start();
        if (Boolean.getBoolean("onelog.endWhenStarted")) {
            System.exit(0);
        }
        // Its own threads do not keep the process alive.
        Thread.currentThread().join();
    }
}
